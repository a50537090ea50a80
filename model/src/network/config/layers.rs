//! What differs from layer to layer: rotary embeddings and windows.

use serde_json::{Map, Value};

use super::LayerType;
use super::class::{Class, LocalRope, Rotation, Slides};
use super::fields::{Fields, bad};
use crate::LoadError;
use crate::network::rope::{RopeParameters, RopeScaling};

/// Which layers rotate.
pub(super) fn rotating(f: &Fields<'_>, class: &Class, layers: u32) -> Result<Vec<bool>, LoadError> {
    let layers = layers as usize;
    let default = match class.rotation {
        Rotation::All => return Ok(vec![true; layers]),
        Rotation::None => return Ok(vec![false; layers]),
        Rotation::Interval(default) => default,
    };
    let Some(list) = f.get("no_rope_layers") else {
        let interval = f.int("no_rope_layer_interval", 1 << 20)?.unwrap_or(default) as usize;
        return Ok((1..=layers).map(|i| i % interval != 0).collect());
    };
    let list = list.as_array().filter(|list| list.len() == layers);
    let flags = list.and_then(|list| {
        list.iter().map(|v| v.as_u64().filter(|v| *v < 2).map(|v| v == 1)).collect::<Option<Vec<_>>>()
    });
    flags.ok_or_else(|| f.bad("no_rope_layers", format!("a list of {layers} numbers, 1 or 0")))
}

/// What each layer sees, and how wide the window is.
pub(super) fn types(
    f: &Fields<'_>,
    class: &Class,
    uses_rope: &[bool],
) -> Result<(Vec<LayerType>, Option<u32>), LoadError> {
    let layers = uses_rope.len();
    if class.lightning {
        let every_second = |i| if i % 2 == 0 { LayerType::Full } else { LayerType::Linear };
        let alternate = || Ok((0..layers).map(every_second).collect());
        let stated = f.get("layer_types").map(|_| stated(f, layers, ("linear_attention", LayerType::Linear)));
        return Ok((stated.unwrap_or_else(alternate)?, None));
    }
    let slides = match class.slides {
        Slides::Never => false,
        Slides::All | Slides::Pattern(_) | Slides::Alternate => true,
        Slides::Used | Slides::From(_) | Slides::AlternateBelow(_) | Slides::Unrotated => {
            f.flag("use_sliding_window")?.unwrap_or(false)
        }
    };
    if !slides {
        return Ok((vec![LayerType::Full; layers], None));
    }
    let window = match f.int("sliding_window", 1 << 30)? {
        None if !f.is_null("sliding_window") => class.sliding_window,
        window => window,
    };
    let sliding = |test: &dyn Fn(usize) -> bool| {
        (0..layers).map(|i| if test(i) { LayerType::Sliding } else { LayerType::Full }).collect::<Vec<_>>()
    };
    let types = if f.get("layer_types").is_some() {
        stated(f, layers, ("sliding_attention", LayerType::Sliding))?
    } else {
        match class.slides {
            Slides::Alternate => sliding(&|i| i % 2 == 0),
            Slides::Pattern(default) => {
                let pattern = f.int("sliding_window_pattern", 1 << 20)?.unwrap_or(default) as usize;
                sliding(&|i| (i + 1) % pattern != 0)
            }
            _ if window.is_none() => sliding(&|_| false),
            Slides::From(default) => {
                let from = max_window_layers(f, default)?;
                sliding(&|i| i as u64 >= from)
            }
            Slides::AlternateBelow(default) => {
                let end = max_window_layers(f, default)?;
                sliding(&|i| i % 2 == 0 && (i as u64) < end)
            }
            Slides::Unrotated => sliding(&|i| !uses_rope[i]),
            Slides::Never | Slides::All | Slides::Used => sliding(&|_| true),
        }
    };
    if !types.contains(&LayerType::Sliding) {
        return Ok((types, None));
    }
    if window.is_none() {
        return Err(f.bad("sliding_window", "a whole number: some layers have sliding attention"));
    }
    Ok((types, window))
}

fn max_window_layers(f: &Fields<'_>, default: u32) -> Result<u64, LoadError> {
    const FIELD: &str = "max_window_layers";
    let layers = f.get(FIELD).map_or(Some(default.into()), Value::as_u64);
    layers.ok_or_else(|| f.bad(FIELD, "a whole number"))
}

/// `layer_types`: full attention, and another kind.
fn stated(f: &Fields<'_>, layers: usize, other: (&str, LayerType)) -> Result<Vec<LayerType>, LoadError> {
    let list = f.get("layer_types").and_then(Value::as_array).filter(|list| list.len() == layers);
    let types = list.and_then(|list| {
        let parse = |v: &Value| match v.as_str() {
            Some("full_attention") => Some(LayerType::Full),
            Some(name) if name == other.0 => Some(other.1),
            _ => None,
        };
        list.iter().map(parse).collect::<Option<Vec<_>>>()
    });
    let want = || format!("a list of {layers} of full_attention and {}", other.0);
    types.ok_or_else(|| f.bad("layer_types", want()))
}

/// Rotary embeddings of full and, where they differ, of sliding layers.
pub(super) fn ropes(
    f: &Fields<'_>,
    class: &Class,
    max: u32,
    original: Option<u32>,
) -> Result<(RopeParameters, Option<RopeParameters>), LoadError> {
    let object = |field: &str| match f.get(field) {
        None => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(_) => Err(f.bad(field, "an object or null")),
    };
    let theta = match f.float("rope_theta")? {
        Some(theta) if theta <= 1.0 => return Err(f.bad("rope_theta", "a number above 1")),
        theta => theta.unwrap_or(class.theta),
    };
    let partial = f.float("partial_rotary_factor")?.unwrap_or(class.partial);
    if !(partial > 0.0 && partial <= 1.0) {
        return Err(f.bad("partial_rotary_factor", "above 0, at most 1"));
    }
    let parse =
        |params: &Map<String, Value>, theta| RopeParameters::parse(params, theta, partial, max, original);
    let local = match (class.local_rope, f.float("rope_local_base_freq")?) {
        (LocalRope::Shared, _) => None,
        (LocalRope::Unscaled, _) => Some(theta),
        (LocalRope::Base(_), Some(theta)) if theta <= 1.0 => {
            return Err(f.bad("rope_local_base_freq", "a number above 1"));
        }
        (LocalRope::Base(default), theta) => Some(theta.unwrap_or(default)),
    };
    let plain = |theta| RopeParameters {
        rope_theta: theta,
        partial_rotary_factor: partial,
        max_position_embeddings: max,
        scaling: RopeScaling::Default,
    };
    let params = object("rope_parameters")?;
    if let Some(params) = params {
        let part = |name: &str| match params.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            other => Err(bad(&format!("rope_parameters.{name}"), other, "an object")),
        };
        let (full, sliding) = (part("full_attention")?, part("sliding_attention")?);
        if full.is_some() || sliding.is_some() {
            let rope = full.map_or_else(|| Ok(plain(theta)), |p| parse(p, theta))?;
            let base = local.unwrap_or(theta);
            let sliding = sliding.map_or_else(|| Ok(plain(base)), |p| parse(p, base))?;
            return Ok((rope, Some(sliding)));
        }
    }
    let empty = Map::new();
    let old = object("rope_scaling")?.filter(|old| !old.is_empty());
    let stated = old.or(params);
    let mut rope = parse(stated.unwrap_or(&empty), theta)?;
    if stated.is_none() {
        rope.scaling = (class.scaling)();
    }
    Ok((rope, local.map(plain)))
}

//! How a matrix is kept on the GPU: formats of its parts, activations, transforms of x.

use girih_ops::WeightFormat;
use girih_ops::kernels::matmul::int::is_integer;
use girih_ops::kernels::quant::{Code, Format, QuantActivation};

use super::rows::{Origin, Segment};
use super::{WeightPolicy, Weights};
use crate::LoadError;
use crate::checkpoint::quantized::{self, ChannelMix, QuantModule};
use crate::checkpoint::tensors::float_type;

/// How a matrix is kept on the GPU.
pub(super) struct Layout {
    /// Rows of each part, in order.
    pub parts: Vec<(u32, WeightFormat)>,
    pub activation: QuantActivation,
    pub input: quantized::InputTransform,
}

impl Weights {
    /// Formats, activations and transforms of a matrix `[n, k]`.
    pub(super) fn layout(
        &self,
        segments: &[Segment<'_>],
        n: u32,
        policy: WeightPolicy,
    ) -> Result<Layout, LoadError> {
        let names = || segments.iter().map(|s| s.origin.name()).collect::<Vec<_>>().join(", ");
        let quantised: Vec<&QuantModule> = segments.iter().filter_map(|s| s.origin.quant()).collect();
        let (activation, mut input) = transforms(segments, &quantised)?;
        // Rows in f32 of what cannot be had otherwise.
        let mut decode = false;
        if policy.force == Some(WeightFormat::F32) {
            decode = !quantised.is_empty();
        } else if let Some(module) = quantised.iter().find(|m| !m.is_packable()) {
            self.note(format!(
                "{}: groups of other sizes than kernels read (format {}); decoded to f32",
                names(),
                module.format
            ));
            decode = true;
        } else if input.is_none() {
            self.note(format!("{}: x is permuted in different ways; decoded to f32", names()));
            decode = true;
        }
        let interleaved = segments.iter().any(|s| s.stride > 1);
        let mut dense = None;
        for s in segments {
            if let Origin::Dense(info) = s.origin {
                let stored = float_type(info)?;
                dense = Some(dense.map_or(stored, |t| if t == stored { t } else { WeightFormat::F32 }));
            }
        }
        let mut formats: Vec<WeightFormat> = Vec::new();
        for s in segments {
            formats.push(match (&s.origin, policy.force) {
                (Origin::Quant(..), _) if decode => WeightFormat::F32,
                (Origin::Quant(module, name), Some(force)) if force != module.format.into() => {
                    let want = format!("left out, f32 (decoded exactly) or {}", module.format);
                    let (tensor, got) = (name.clone(), module.format.to_string());
                    return Err(LoadError::Requantize { tensor, got, want });
                }
                (Origin::Quant(module, _), _) => module.format.into(),
                (Origin::Dense(info), Some(WeightFormat::Quant(format))) => {
                    let head = info.name.ends_with("lm_head.weight");
                    WeightFormat::Quant(if head && format.code.bits() < 8 { Format::Q8_0 } else { format })
                }
                (Origin::Dense(_), Some(force)) => force,
                (Origin::Dense(_), None) => dense.unwrap_or(WeightFormat::F32),
            });
        }
        // One format for all if there is one that holds all exactly; alternate rows must have one.
        let unified = formats.iter().skip(1).try_fold(formats[0], |a, &b| match (a, b) {
            (a, b) if a == b => Some(a),
            (WeightFormat::Quant(a), WeightFormat::Quant(b)) => quantized::unify(a, b).map(Into::into),
            _ => None,
        });
        match unified {
            Some(format) => formats.fill(format),
            None if interleaved => {
                if !quantised.is_empty() {
                    self.note(format!("{}: formats differ in alternate rows; decoded to f32", names()));
                }
                decode = true;
                formats.fill(WeightFormat::F32);
            }
            None => {}
        }
        let mut parts: Vec<(u32, WeightFormat)> = Vec::new();
        if interleaved || unified.is_some() {
            parts.push((n, formats[0]));
        } else {
            for (s, format) in segments.iter().zip(formats) {
                match parts.last_mut() {
                    Some((rows, last)) if *last == format => *rows += s.rows as u32,
                    _ => parts.push((s.rows as u32, format)),
                }
            }
        }
        // Decoded rows are those of x as it comes.
        if decode && input.as_ref().is_none_or(|i| matches!(i.mix, ChannelMix::Permute(_))) {
            input = Some(quantized::InputTransform::default());
        }
        let activation = activation_of(&parts, activation, policy, &names)?;
        Ok(Layout { parts, activation, input: input.unwrap_or_default() })
    }
}

/// Activation and transform of x that modules agree upon; no transform if they permute x in different ways.
fn transforms(
    segments: &[Segment<'_>],
    quantised: &[&QuantModule],
) -> Result<(QuantActivation, Option<quantized::InputTransform>), LoadError> {
    let Some(first) = quantised.first() else {
        return Ok((QuantActivation::Float, Some(quantized::InputTransform::default())));
    };
    let names = || segments.iter().map(|s| s.origin.name()).collect::<Vec<_>>().join(", ");
    let list = |of: &dyn Fn(&QuantModule) -> String| {
        let each = segments.iter().map(|s| s.origin.quant().map_or_else(|| "none".to_owned(), of));
        each.collect::<Vec<_>>().join(", ")
    };
    let mixed = quantised.len() < segments.len();
    let differs = |what, got| Err(LoadError::Fused { modules: names(), what, got });
    if quantised.iter().any(|m| m.activation != first.activation)
        || mixed && first.activation != QuantActivation::Float
    {
        return differs("activations", list(&|m| m.activation.to_string()));
    }
    let none = quantized::InputTransform::default();
    if quantised.iter().all(|m| m.input == first.input) && !(mixed && first.input != none) {
        return Ok((first.activation, Some(first.input.clone())));
    }
    let permutes = |m: &&QuantModule| {
        m.input.scale.is_none() && matches!(m.input.mix, ChannelMix::None | ChannelMix::Permute(_))
    };
    if quantised.iter().all(permutes) {
        return Ok((first.activation, None));
    }
    differs("transforms of x", list(&|m| m.input.describe()))
}

/// How x enters the product with these parts.
fn activation_of(
    parts: &[(u32, WeightFormat)],
    stored: QuantActivation,
    policy: WeightPolicy,
    names: &dyn Fn() -> String,
) -> Result<QuantActivation, LoadError> {
    let all_quantised = parts.iter().all(|(_, f)| matches!(f, WeightFormat::Quant(_)));
    let activation = policy.activations.unwrap_or(stored);
    if !all_quantised || activation == QuantActivation::Float {
        return Ok(QuantActivation::Float);
    }
    for (_, format) in parts {
        let WeightFormat::Quant(format) = format else { continue };
        let want = if format.code == Code::E4m3 {
            "use float activations with FP8 weights"
        } else if !is_integer(*format) {
            "groups must be 16 channels, a multiple of 32, or the row"
        } else {
            continue;
        };
        let (got, activation) = (format.to_string(), activation.to_string());
        return Err(LoadError::Activations { tensor: names(), got, activation, want });
    }
    Ok(activation)
}

//! compressed-tensors: groups of modules, each with its scheme.

use girih_ops::kernels::quant::{Format, QuantActivation};
use serde_json::Value;

use super::super::pattern::{FUEL, MAX_LEN, Pattern};
use super::super::{Element, Packed, Quantization, Spread, Stored};
use super::fields::Fields;
use super::{dtype, has, modules};
use crate::LoadError;
use crate::checkpoint::table::{StoredType, TensorTable};

/// A group of `config_groups` that describes weights.
struct Group {
    targets: Vec<Target>,
    stored: Packed,
    note: Option<String>,
}

enum Target {
    Name(String),
    Pattern(Pattern),
    /// Of layers, in Python.
    Class(String),
}

impl Target {
    /// Whether a class is that of the module. All quantised matrices are `Linear` or derived from it, except tables.
    fn is_class_of(&self, module: &str) -> bool {
        let Self::Class(class) = self else { return false };
        let table = ["embed_tokens", "embed_in", "wte", "word_embeddings", "tok_embeddings"];
        let last = module.rsplit('.').next().unwrap_or(module);
        class.ends_with(if table.contains(&last) { "Embedding" } else { "Linear" })
    }
}

/// The group that describes a module: one that names it, one with a pattern, one of its class, in this order.
fn group_of<'a>(
    f: &Fields<'_>,
    all: &'a [Group],
    module: &str,
    fuel: &mut u64,
) -> Result<&'a Group, LoadError> {
    let named = |t: &Target| matches!(t, Target::Name(name) if name == module);
    if let Some(group) = all.iter().find(|g| g.targets.iter().any(named)) {
        return Ok(group);
    }
    for group in all {
        for target in &group.targets {
            let Target::Pattern(pattern) = target else { continue };
            if module.len() > MAX_LEN {
                let want = format!("patterns for names of modules of at most {MAX_LEN} bytes");
                return Err(f.bad("config_groups", want));
            }
            match pattern.matches(module, fuel) {
                Some(true) => return Ok(group),
                Some(false) => {}
                None => return Err(f.bad("config_groups", "patterns that take fewer steps to match")),
            }
        }
    }
    all.iter().find(|g| g.targets.iter().any(|t| t.is_class_of(module))).ok_or_else(|| {
        let module: String = module.chars().take(200).collect();
        f.bad("config_groups", format!("a group that describes the weights of {module}"))
    })
}

pub(super) fn compressed(
    f: &Fields<'_>,
    table: &TensorTable,
    found: &mut Quantization,
) -> Result<(), LoadError> {
    if let Some(sparsity) = f.object("sparsity_config")?
        && !matches!(sparsity.text("format")?, None | Some("dense"))
    {
        return Err(sparsity.bad("format", "dense"));
    }
    if f.object("transform_config")?.is_some_and(|t| !t.map.is_empty()) {
        return Err(f.bad("transform_config", "absent or empty"));
    }
    if f.object("kv_cache_scheme")?.is_some() {
        found.notes.push("kv_cache_scheme is left out: keys and values are not quantised".into());
    }
    let groups = f.object("config_groups")?.ok_or_else(|| f.bad("config_groups", "an object"))?;
    let mut all = Vec::new();
    for name in groups.map.keys() {
        let group = groups.object(name)?.ok_or_else(|| groups.bad(name, "an object"))?;
        all.extend(compressed_group(f, &group)?);
    }
    let packed = modules(table, "weight_packed");
    let integers_or_floats = [StoredType::I8, StoredType::F8E4M3];
    let plain = modules(table, "weight")
        .filter(|m| dtype(table, m).is_some_and(|dtype| integers_or_floats.contains(&dtype)));
    // The missing tensor is named when they are opened.
    let bare = modules(table, "weight_scale")
        .filter(|m| dtype(table, m).is_none() && !has(table, m, "weight_packed"));
    let mut fuel = FUEL;
    for module in packed.chain(plain).chain(bare) {
        let Group { stored, note, .. } = group_of(f, &all, module, &mut fuel)?;
        found.modules.insert(module.to_owned(), Stored::Packed(stored.clone()));
        if let Some(note) = note
            && !found.notes.contains(note)
        {
            found.notes.push(note.clone());
        }
    }
    Ok(())
}

/// `None`: the group is not about weights.
fn compressed_group(f: &Fields<'_>, g: &Fields<'_>) -> Result<Option<Group>, LoadError> {
    let Some(w) = g.object("weights")? else { return Ok(None) };
    let targets = g.get("targets").and_then(Value::as_array).ok_or_else(|| g.bad("targets", "a list"))?;
    let target = |v: &Value| match v.as_str() {
        Some(class) if !class.contains(['.', ':']) && class.starts_with(char::is_uppercase) => {
            Ok(Target::Class(class.to_owned()))
        }
        Some(text) => match text.strip_prefix("re:") {
            None => Ok(Target::Name(text.to_owned())),
            Some(p) => Pattern::parse(p).map(Target::Pattern).ok_or_else(|| {
                g.bad("targets", format!("names or simple patterns of at most {MAX_LEN} bytes"))
            }),
        },
        None => Err(g.bad("targets", "a list of texts")),
    };
    let targets = targets.iter().map(target).collect::<Result<Vec<_>, _>>()?;
    let (activation, note) = compressed_activation(g)?;
    let (from, format) = match g.text("format")? {
        Some(format) => (g, format),
        None => (f, f.text("format")?.unwrap_or_default()),
    };
    let bits = w.int("num_bits")?.unwrap_or(8) as u32;
    let float = match w.text("type")? {
        None | Some("int") => false,
        Some("float") => true,
        Some(_) => return Err(w.bad("type", "int or float")),
    };
    let spread = match (w.text("strategy")?, w.group("group_size")?) {
        (Some("group" | "tensor_group"), group) | (None, group @ Some(_)) => {
            Spread::Group(group.ok_or_else(|| w.bad("group_size", "a whole number above 0"))?)
        }
        (Some("tensor" | "channel") | None, _) => Spread::TensorOrRow,
        (Some("block"), _) => Spread::Block(
            w.block("block_structure")?
                .ok_or_else(|| w.bad("block_structure", "two whole numbers above 0"))?,
        ),
        _ => return Err(w.bad("strategy", "tensor, channel, group, tensor_group or block")),
    };
    let integers = |element: Element, codes: &'static str| -> Result<Packed, LoadError> {
        let zeros = w.flag("symmetric")? == Some(false);
        Ok(Packed { codes, element, zeros, ..Packed::fp8("weight_scale", spread) })
    };
    let packed = match format {
        "pack-quantized" if float || !matches!(bits, 4 | 8) => {
            return Err(w.bad("num_bits", "4 or 8, of type int"));
        }
        "pack-quantized" => integers(Element::Words { bits }, "weight_packed")?,
        "int-quantized" | "naive-quantized" if !float => {
            if bits > 8 {
                return Err(w.bad("num_bits", "at most 8"));
            }
            integers(Element::Int8, "weight")?
        }
        "float-quantized" | "naive-quantized" => {
            if !float || bits != 8 {
                return Err(w.bad("num_bits", "8, of type float"));
            }
            Packed::fp8("weight_scale", spread)
        }
        "nvfp4-pack-quantized" => Packed::nvfp4("weight_packed", "weight_global_scale", true),
        "mxfp4-pack-quantized" => Packed::mxfp4("weight_packed", "weight_scale"),
        _ => {
            let want = "pack-quantized, int-quantized, float-quantized, naive-quantized, nvfp4-pack-quantized \
                        or mxfp4-pack-quantized";
            return Err(from.bad("format", want));
        }
    };
    // "weight" and "static" quantise in another order and keep the channels' places.
    let ordered = match w.get("actorder") {
        None | Some(Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(Value::String(s)) if ["group", "dynamic"].iter().any(|o| s.eq_ignore_ascii_case(o)) => true,
        Some(Value::String(s)) if ["weight", "static"].iter().any(|o| s.eq_ignore_ascii_case(o)) => false,
        Some(_) => return Err(w.bad("actorder", "group, weight, static or dynamic")),
    };
    Ok(Some(Group { targets, stored: Packed { ordered, activation, ..packed }, note }))
}

/// How x enters products, and what is left out.
fn compressed_activation(g: &Fields<'_>) -> Result<(QuantActivation, Option<String>), LoadError> {
    let Some(a) = g.object("input_activations")? else { return Ok((QuantActivation::Float, None)) };
    let bits = a.int("num_bits")?.unwrap_or(8);
    let dynamic = a.get("dynamic").is_some_and(|d| d.as_bool() == Some(true) || d.as_str() == Some("local"));
    let integer = matches!(a.text("type")?, None | Some("int")) && (2..=8).contains(&bits);
    let group = match (a.text("strategy")?, a.group("group_size")?) {
        (Some("token") | None, None) => Some(Format::ROW),
        (Some("group") | None, Some(g)) if g.is_multiple_of(32) => Some(g),
        _ => None,
    };
    let symmetric = a.flag("symmetric")?.unwrap_or(true);
    match group {
        Some(group) if integer && dynamic && symmetric => {
            Ok((QuantActivation::Int { bits: bits as u8, group, clip: 1.0 }, None))
        }
        _ => {
            let note = "activations are not rounded as input_activations say (only dynamic symmetric integers per \
                        token or group are): they are f32 in products";
            Ok((QuantActivation::Float, Some(note.into())))
        }
    }
}

//! `quantization_config` of `config.json`: the methods that are known, and what they say about each module.
//!
//! Which modules are quantised is seen from the tensors; the configuration says how they are to be read. The parameters
//! that are read here are validated: values that no loader here can honour are errors, with the field's name. Others
//! (how a quantiser came to its codes: `damp_percent`, `true_sequential`, `observer`, lists of modules that are left
//! out) are ignored.

use girih_ops::kernels::quant::{Activation, Format};
use serde_json::{Map, Value};

use super::pattern::{FUEL, MAX_LEN, Pattern};
use super::{Element, Gptq, Packed, Quantization, Spread, Stored};
use crate::format::safetensors::{StoredType, TensorTable};
use crate::{Config, LoadError};

/// Methods that are known.
pub const METHODS: [&str; 8] =
    ["awq", "compressed-tensors", "fbgemm_fp8", "fp8", "girih", "gptq", "modelopt", "mxfp4"];

/// Version of girih's own layout.
pub const VERSION: u64 = 1;

const FIELD: &str = "quantization_config";

impl Quantization {
    /// What the configuration says about the tensors of a checkpoint.
    ///
    /// # Errors
    /// Methods that are not known, parameters that they do not have.
    pub fn of(config: &Config, table: &TensorTable) -> Result<Self, LoadError> {
        let stated = ["quantization_config", "compression_config"].map(|name| config.raw.get(name));
        let Some(value) = stated.into_iter().flatten().find(|v| !v.is_null()) else {
            return Ok(Self::default());
        };
        let Value::Object(map) = value else { return Err(bad("", Some(value), "an object")) };
        let f = Fields { path: String::new(), map };
        let method = match f.text("quant_method")? {
            None if f.get("config_groups").is_some() => "compressed-tensors",
            None if f.get("quant_algo").is_some() => "modelopt",
            None => return Err(f.bad("quant_method", format!("one of {}", METHODS.join(", ")))),
            Some(method) => method,
        };
        let mut found = Self::default();
        match method {
            "gptq" => gptq(&f, table, &mut found)?,
            "awq" => awq(&f, table, &mut found)?,
            "compressed-tensors" => compressed(&f, table, &mut found)?,
            "fp8" | "fbgemm_fp8" => fp8(&f, table, &mut found)?,
            "mxfp4" => mxfp4(table, &mut found),
            "modelopt" => modelopt(&f, table, &mut found)?,
            "girih" => girih(&f, table, &mut found)?,
            "qoq" | "qserve" => {
                let want = "another method: QServe's tensors (qweight, s1_scales, s2_scales, s2_zeros) are permuted \
                            in tiles for its own kernels and are not read; quantise the dense checkpoint with \
                            `girih quantize --scheme qoq`";
                return Err(f.bad("quant_method", want));
            }
            _ => return Err(f.bad("quant_method", format!("one of {}", METHODS.join(", ")))),
        }
        Ok(found)
    }
}

/// Reads fields of an object and says what is wrong with them.
struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
}

fn bad(path: &str, got: Option<&Value>, want: impl Into<String>) -> LoadError {
    let got = got.map_or_else(|| "absent".to_owned(), ToString::to_string).chars().take(200).collect();
    LoadError::Config { field: format!("{FIELD}{path}"), got, want: want.into() }
}

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|v| !v.is_null())
    }

    fn bad(&self, name: &str, want: impl Into<String>) -> LoadError {
        bad(&format!("{}.{name}", self.path), self.map.get(name), want)
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, LoadError> {
        self.get(name).map(|v| v.as_str().ok_or_else(|| self.bad(name, "a text"))).transpose()
    }

    fn int(&self, name: &str) -> Result<Option<u64>, LoadError> {
        self.get(name)
            .map(|v| {
                v.as_u64().filter(|v| *v < 1 << 30).ok_or_else(|| self.bad(name, "a whole number below 2^30"))
            })
            .transpose()
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, LoadError> {
        self.get(name).map(|v| v.as_bool().ok_or_else(|| self.bad(name, "true or false"))).transpose()
    }

    fn object(&self, name: &str) -> Result<Option<Self>, LoadError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields { path: format!("{}.{name}", self.path), map })),
            Some(_) => Err(self.bad(name, "an object")),
        }
    }

    /// A group size; -1 and absence mean the row.
    fn group(&self, name: &str) -> Result<Option<u32>, LoadError> {
        match self.get(name).map(Value::as_i64) {
            None | Some(Some(-1)) => Ok(None),
            Some(Some(g)) if (1..1 << 30).contains(&g) => Ok(Some(g as u32)),
            _ => Err(self.bad(name, "a whole number above 0, or -1 for the whole row")),
        }
    }

    /// Two sizes.
    fn block(&self, name: &str) -> Result<Option<[u32; 2]>, LoadError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let size = |v: &Value| v.as_u64().filter(|v| (1..1 << 30).contains(v)).map(|v| v as u32);
        match value.as_array().map(Vec::as_slice) {
            Some([a, b]) => size(a).zip(size(b)).map(|(a, b)| Some([a, b])),
            _ => None,
        }
        .ok_or_else(|| self.bad(name, "two whole numbers above 0"))
    }
}

/// Names of the modules that have a tensor of this name.
fn modules<'a>(table: &'a TensorTable, tensor: &'a str) -> impl Iterator<Item = &'a str> {
    table.iter().filter_map(move |t| t.name.strip_suffix(tensor)?.strip_suffix('.'))
}

fn has(table: &TensorTable, module: &str, tensor: &str) -> bool {
    table.get(&format!("{module}.{tensor}")).is_some()
}

fn dtype(table: &TensorTable, module: &str) -> Option<StoredType> {
    table.get(&format!("{module}.weight")).map(|t| t.dtype)
}

/// Modules that are packed across rows. One of their tensors tells; one that is missing is named when it is opened.
fn columns(table: &TensorTable, stored: &Stored, found: &mut Quantization) {
    for tensor in ["qweight", "qzeros"] {
        found.modules.extend(modules(table, tensor).map(|m| (m.to_owned(), stored.clone())));
    }
}

fn gptq(f: &Fields<'_>, table: &TensorTable, found: &mut Quantization) -> Result<(), LoadError> {
    let bits = match f.int("bits")? {
        Some(bits @ (2 | 3 | 4 | 8)) => bits as u32,
        _ => return Err(f.bad("bits", "2, 3, 4 or 8")),
    };
    let v2 = match f.text("checkpoint_format")? {
        None | Some("gptq") => false,
        Some("gptq_v2") => true,
        Some(_) => return Err(f.bad("checkpoint_format", "gptq or gptq_v2")),
    };
    if f.flag("is_marlin_format")? == Some(true) {
        return Err(f.bad("is_marlin_format", "false (repacked for one kernel: convert it back)"));
    }
    if f.object("dynamic")?.is_some_and(|d| !d.map.is_empty()) {
        return Err(
            f.bad("dynamic", "absent or empty (parameters that differ between modules are not supported)")
        );
    }
    // With static groups channels keep their places although they were quantised in another order.
    let ordered = f.flag("desc_act")? == Some(true) && f.flag("static_groups")? != Some(true);
    let stored = Stored::Gptq(Gptq { bits, group: f.group("group_size")?, v2, ordered });
    columns(table, &stored, found);
    Ok(())
}

fn awq(f: &Fields<'_>, table: &TensorTable, found: &mut Quantization) -> Result<(), LoadError> {
    if f.int("bits")?.or(f.int("w_bit")?) != Some(4) {
        return Err(f.bad("bits", "4"));
    }
    if !f.text("version")?.is_none_or(|v| v.eq_ignore_ascii_case("gemm")) {
        return Err(f.bad("version", "gemm"));
    }
    if f.flag("zero_point")? == Some(false) {
        return Err(f.bad("zero_point", "true"));
    }
    let name = if f.get("group_size").is_some() { "group_size" } else { "q_group_size" };
    let stored = Stored::Awq { group: f.group(name)? };
    columns(table, &stored, found);
    Ok(())
}

fn fp8(f: &Fields<'_>, table: &TensorTable, found: &mut Quantization) -> Result<(), LoadError> {
    if f.text("fmt")?.is_some_and(|t| t != "e4m3") {
        return Err(f.bad("fmt", "e4m3"));
    }
    let block = f.block("weight_block_size")?;
    let spread = block.map_or(Spread::TensorOrRow, Spread::Block);
    found.modules.extend(eight_bit_floats(table, spread));
    if !found.modules.is_empty() {
        found
            .notes
            .push("activations are not rounded to FP8: products have FP8 weights and f32 activations".into());
    }
    Ok(())
}

fn eight_bit_floats(table: &TensorTable, spread: Spread) -> impl Iterator<Item = (String, Stored)> {
    let stored = modules(table, "weight").filter(|m| dtype(table, m) == Some(StoredType::F8E4M3));
    stored.map(move |m| {
        let scales = if has(table, m, "weight_scale") { "weight_scale" } else { "weight_scale_inv" };
        (m.to_owned(), Stored::Packed(Packed::fp8(scales, spread)))
    })
}

fn mxfp4(table: &TensorTable, found: &mut Quantization) {
    for (codes, scales) in [("weight_blocks", "weight_scales"), ("blocks", "scales")] {
        let stored = Stored::Packed(Packed::mxfp4(codes, scales));
        // `scales` alone tells nothing.
        let bare = modules(table, scales).filter(|_| scales == "weight_scales");
        found.modules.extend(modules(table, codes).chain(bare).map(|m| (m.to_owned(), stored.clone())));
    }
}

fn modelopt(f: &Fields<'_>, table: &TensorTable, found: &mut Quantization) -> Result<(), LoadError> {
    let algorithm = f.text("quant_algo")?;
    if !matches!(algorithm, Some("NVFP4" | "FP8")) {
        return Err(f.bad("quant_algo", "NVFP4 or FP8"));
    }
    if !matches!(f.int("group_size")?, None | Some(16)) {
        return Err(f.bad("group_size", "16"));
    }
    let fp4 = modules(table, "weight").filter(|m| dtype(table, m) == Some(StoredType::U8));
    let stored = Stored::Packed(Packed::nvfp4("weight", "weight_scale_2", false));
    found.modules.extend(fp4.map(|m| (m.to_owned(), stored.clone())));
    found.modules.extend(eight_bit_floats(table, Spread::TensorOrRow));
    if !found.modules.is_empty() {
        found.notes.push("activations are not rounded to FP4 or FP8: they are f32 in products".into());
    }
    Ok(())
}

fn girih(f: &Fields<'_>, table: &TensorTable, found: &mut Quantization) -> Result<(), LoadError> {
    match f.int("version")? {
        Some(VERSION) => {}
        Some(newer) if newer > VERSION => {
            let want = format!("at most {VERSION}: a newer girih wrote this checkpoint");
            return Err(f.bad("version", want));
        }
        _ => return Err(f.bad("version", VERSION.to_string())),
    }
    let Some(described) = f.object("modules")? else { return Err(f.bad("modules", "an object")) };
    for name in described.map.keys() {
        let Some(m) = described.object(name)? else { return Err(described.bad(name, "an object")) };
        let format = m.text("format")?.ok_or_else(|| m.bad("format", "a weight format"))?;
        let format: Format = format.parse().map_err(|e| m.bad("format", format!("a weight format: {e}")))?;
        let activation = match m.text("activation")? {
            None => Activation::Float,
            Some(text) => {
                text.parse().map_err(|e| m.bad("activation", format!("a type of activations: {e}")))?
            }
        };
        let hadamard = m.int("hadamard")?.map(|block| block as u32);
        found.modules.insert(name.clone(), Stored::Girih { format, activation, hadamard });
    }
    if let Some(name) = modules(table, "weight_codes").find(|m| !found.modules.contains_key(*m)) {
        return Err(described.bad(name, format!("described: the checkpoint has {name}.weight_codes")));
    }
    Ok(())
}

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

fn compressed(f: &Fields<'_>, table: &TensorTable, found: &mut Quantization) -> Result<(), LoadError> {
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
fn compressed_activation(g: &Fields<'_>) -> Result<(Activation, Option<String>), LoadError> {
    let Some(a) = g.object("input_activations")? else { return Ok((Activation::Float, None)) };
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
            Ok((Activation::Int { bits: bits as u8, group, clip: 1.0 }, None))
        }
        _ => {
            let note = "activations are not rounded as input_activations say (only dynamic symmetric integers per \
                        token or group are): they are f32 in products";
            Ok((Activation::Float, Some(note.into())))
        }
    }
}

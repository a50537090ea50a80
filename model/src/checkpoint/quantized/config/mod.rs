//! What a checkpoint says about its quantised modules: `quantization_config` of `config.json`, or a file beside it.
//!
//! Which modules are quantised is seen from the tensors; the description says how they are to be read. The parameters
//! that are read here are validated: values that no loader here can honour are errors, with the field's name. Others
//! (how a quantiser came to its codes: `damp_percent`, `true_sequential`, `observer`, lists of modules that are left
//! out) are ignored.

mod columns;
mod compressed;
mod fields;

use girih_ops::kernels::quant::{Format, QuantActivation};
use serde_json::{Map, Value};

use self::fields::{CONFIG, Fields, bad};
use super::{Packed, Quantization, Spread, Stored};
use crate::LoadError;
use crate::checkpoint::format::json;
use crate::checkpoint::source::{ByteSource, read_whole};
use crate::checkpoint::table::{StoredType, TensorTable};

/// Methods that are known.
pub const METHODS: [&str; 8] =
    ["awq", "compressed-tensors", "fbgemm_fp8", "fp8", "girih", "gptq", "modelopt", "mxfp4"];

/// Version of girih's own layout.
pub const VERSION: u64 = 1;

/// Files beside `config.json` in which tools keep the description: AutoGPTQ and AutoAWQ, AutoAWQ, ModelOpt.
const SIDE_FILES: [&str; 3] = ["quantize_config.json", "quant_config.json", "hf_quant_config.json"];
/// Bytes of such a file at most.
const MAX_TEXT: u64 = 16 << 20;

impl Quantization {
    /// What a checkpoint says about its tensors: `config.json` first, then the files beside it.
    ///
    /// # Errors
    /// As [`Quantization::of`], and those of the source.
    pub async fn described(
        source: &dyn ByteSource,
        config: &Map<String, Value>,
        table: &TensorTable,
    ) -> Result<Self, LoadError> {
        // Beside a dense model such a file is left over.
        if stated(config).is_none() && undescribed(table).is_some() {
            for file in SIDE_FILES {
                if let Some(bytes) = read_whole(source, file, MAX_TEXT).await? {
                    return Self::read(file, &json::parse(file, &bytes)?, table);
                }
            }
        }
        Self::of(config, table)
    }

    /// What the configuration says about the tensors of a checkpoint.
    ///
    /// # Errors
    /// Methods that are not known, parameters that they do not have; no description although tensors are quantised.
    pub fn of(config: &Map<String, Value>, table: &TensorTable) -> Result<Self, LoadError> {
        if let Some(value) = stated(config) {
            return Self::read(CONFIG, value, table);
        }
        match undescribed(table) {
            None => Ok(Self::default()),
            Some(tensor) => {
                let files = SIDE_FILES.join(", ");
                let want = format!(
                    "an object, here or in {files}: {tensor} is stored quantised, and nothing says how"
                );
                Err(bad(CONFIG, "", None, want))
            }
        }
    }

    fn read(file: &str, value: &Value, table: &TensorTable) -> Result<Self, LoadError> {
        let Value::Object(map) = value else { return Err(bad(file, "", Some(value), "an object")) };
        let mut f = Fields { file, path: String::new(), map };
        // ModelOpt's own form, in its file or in the configuration.
        if let Some(nested) = f.object("quantization")? {
            f = nested;
        }
        let method = match f.text("quant_method")? {
            None => method_of(&f)
                .ok_or_else(|| f.bad("quant_method", format!("one of {}", METHODS.join(", "))))?,
            Some(method) => method,
        };
        let mut found = Self::default();
        match method {
            "gptq" => columns::gptq(&f, table, &mut found)?,
            "awq" => columns::awq(&f, table, &mut found)?,
            "compressed-tensors" => compressed::compressed(&f, table, &mut found)?,
            "fp8" | "fbgemm_fp8" => fp8(&f, table, &mut found)?,
            "mxfp4" => mxfp4(table, &mut found),
            "modelopt" | "modelopt_fp4" => modelopt(&f, table, &mut found)?,
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

/// The description in `config.json`.
fn stated(config: &Map<String, Value>) -> Option<&Value> {
    let stated = ["quantization_config", "compression_config"].map(|name| config.get(name));
    stated.into_iter().flatten().find(|v| !v.is_null())
}

/// The method of a description that does not name it: those of the tools that came before the name did.
fn method_of(f: &Fields<'_>) -> Option<&'static str> {
    let has = |name: &str| f.get(name).is_some();
    if has("config_groups") {
        Some("compressed-tensors")
    } else if has("quant_algo") {
        Some("modelopt")
    } else if has("w_bit") || has("q_group_size") || has("zero_point") {
        Some("awq")
    } else if has("bits") && (has("desc_act") || has("sym") || has("group_size")) {
        Some("gptq")
    } else {
        None
    }
}

/// A tensor that only a quantised module has.
fn undescribed(table: &TensorTable) -> Option<&str> {
    let quantised = |name: &str, dtype: StoredType| {
        let last = name.rsplit('.').next().unwrap_or(name);
        let packed = ["qweight", "weight_packed", "weight_blocks", "weight_codes"].contains(&last);
        let stack = last.ends_with("_blocks") && dtype == StoredType::U8;
        packed
            || stack
            || (last == "weight" && matches!(dtype, StoredType::F8E4M3 | StoredType::U8 | StoredType::I8))
    };
    table.iter().find(|t| quantised(&t.name, t.dtype)).map(|t| t.name.as_str())
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
    // Stacks of experts are no modules of their own: `experts.gate_up_proj_blocks` [E, N, K / 32, 16].
    let stored = Stored::Packed(Packed::mxfp4("_blocks", "_scales"));
    let stacks = table.iter().filter_map(|t| t.name.strip_suffix("_blocks"));
    let stacks = stacks.filter(|m| !m.ends_with(".weight"));
    found.modules.extend(stacks.map(|m| (m.to_owned(), stored.clone())));
}

fn modelopt(f: &Fields<'_>, table: &TensorTable, found: &mut Quantization) -> Result<(), LoadError> {
    let algorithm = f.text("quant_algo")?;
    if !matches!(algorithm, Some("NVFP4" | "FP8")) {
        return Err(f.bad("quant_algo", "NVFP4 or FP8"));
    }
    let cache = ["kv_cache_quant_algo", "kv_cache_scheme"].into_iter().find(|name| f.get(name).is_some());
    if let Some(name) = cache {
        found.notes.push(format!("{name} is left out: keys and values are not quantised"));
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
            None => QuantActivation::Float,
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

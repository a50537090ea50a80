//! GGUF files that tests make: from checkpoints as converters do, or by hand.

use girih_model::checkpoint::format::gguf::{Family, GgufType, Value};
use girih_model::checkpoint::source::ByteSource;
use girih_model::checkpoint::table::TensorTable;
use girih_model::checkpoint::weights::{WeightPolicy, Weights};
use girih_model::network::arch::KNOWN;
use serde_json::Value as Json;

use crate::goldens::Tensors;
use girih_kernels::testing::hash;

mod experts;

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// ggml's name.
    pub name: String,
    /// Type.
    pub ty: GgufType,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Data.
    pub bytes: Vec<u8>,
}

/// A file to be written.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// Metadata, in order.
    pub metadata: Vec<(String, Value)>,
    /// Tensors, in order.
    pub tensors: Vec<Tensor>,
}

fn text(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

impl File {
    /// Sets a value.
    pub fn set(&mut self, key: &str, value: Value) {
        self.metadata.retain(|(k, _)| k != key);
        self.metadata.push((key.to_owned(), value));
    }

    /// The bytes of the file. Integers are written as u32 (large ones as u64) and i32, numbers as f32.
    ///
    /// # Panics
    /// Arrays of arrays.
    pub fn bytes(&self, version: u32) -> Vec<u8> {
        use girih_model::checkpoint::format::gguf::Array;
        let mut out = b"GGUF".to_vec();
        out.extend(version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            text(&mut out, key);
            let mut kind = |kind: u32| out.extend(kind.to_le_bytes());
            match value {
                Value::Uint(v) => {
                    if let Ok(v) = u32::try_from(*v) {
                        kind(4);
                        out.extend(v.to_le_bytes());
                    } else {
                        kind(10);
                        out.extend(v.to_le_bytes());
                    }
                }
                Value::Int(v) => {
                    kind(5);
                    out.extend((*v as i32).to_le_bytes());
                }
                Value::Float(v) => {
                    kind(6);
                    out.extend((*v as f32).to_le_bytes());
                }
                Value::Bool(v) => {
                    kind(7);
                    out.push(u8::from(*v));
                }
                Value::String(v) => {
                    kind(8);
                    text(&mut out, v);
                }
                Value::Array(array) => {
                    kind(9);
                    let id: u32 = match array {
                        Array::Byte(_) => 0,
                        Array::Uint(_) => 4,
                        Array::Int(_) => 5,
                        Array::Float(_) => 6,
                        Array::Bool(_) => 7,
                        Array::String(_) => 8,
                        Array::Array(_) => panic!("arrays of arrays are not written"),
                    };
                    out.extend(id.to_le_bytes());
                    out.extend((array.len() as u64).to_le_bytes());
                    match array {
                        Array::Byte(v) => out.extend(v),
                        Array::Uint(v) => v.iter().for_each(|v| out.extend((*v as u32).to_le_bytes())),
                        Array::Int(v) => v.iter().for_each(|v| out.extend((*v as i32).to_le_bytes())),
                        Array::Float(v) => v.iter().for_each(|v| out.extend((*v as f32).to_le_bytes())),
                        Array::Bool(v) => out.extend(v.iter().map(|v| u8::from(*v))),
                        Array::String(v) => v.iter().for_each(|v| text(&mut out, v)),
                        Array::Array(_) => {}
                    }
                }
            }
        }
        let mut offset = 0;
        for t in &self.tensors {
            text(&mut out, &t.name);
            out.extend((t.shape.len() as u32).to_le_bytes());
            t.shape.iter().rev().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(t.ty.id().to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += t.bytes.len().next_multiple_of(32);
        }
        for t in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(&t.bytes);
        }
        out
    }

    /// The file in `count` parts as gguf-split makes them: names and bytes. All metadata are in the first.
    pub fn split(&self, name: &str, count: usize) -> Vec<(String, Vec<u8>)> {
        let each = self.tensors.len().div_ceil(count).max(1);
        let parts = (0..count).map(|no| {
            let mut part = Self { metadata: Vec::new(), tensors: Vec::new() };
            if no == 0 {
                part.metadata.clone_from(&self.metadata);
            }
            part.tensors.extend(self.tensors.iter().skip(no * each).take(each).cloned());
            part.set("split.no", Value::Uint(no as u64));
            part.set("split.count", Value::Uint(count as u64));
            part.set("split.tensors.count", Value::Int(self.tensors.len() as i64));
            (format!("{name}-{:05}-of-{count:05}.gguf", no + 1), part.bytes(3))
        });
        parts.collect()
    }

    /// Adds a vector of f32.
    pub fn vector(&mut self, name: &str, values: &[f32]) {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let (name, shape) = (name.to_owned(), vec![values.len() as u64]);
        self.tensors.push(Tensor { name, ty: GgufType::F32, shape, bytes });
    }

    /// The same file with every quantised matrix decoded to f32.
    ///
    /// # Panics
    /// Blocks that cannot be decoded.
    #[must_use]
    pub fn decoded(&self) -> Self {
        let mut out = self.clone();
        for t in &mut out.tensors {
            if t.ty.format().is_some() {
                let k = *t.shape.last().expect("a matrix") as u32;
                let scale = self.tensors.iter().find(|s| s.name == t.name.replace(".weight", ".scale"));
                let scale = scale.map_or(1.0, |s| f32::from_le_bytes(s.bytes[..4].try_into().expect("f32")));
                let values = t.ty.decode(k, &t.bytes, scale).expect("finite scales");
                (t.ty, t.bytes) = (GgufType::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect());
            }
        }
        out.tensors.retain(|t| t.name.strip_suffix(".scale").is_none());
        out
    }

    /// Replaces every matrix of a layer by blocks of made-up codes; `types` are taken in turn, where rows are whole
    /// blocks.
    ///
    /// # Panics
    /// No types.
    pub fn quantize(&mut self, types: &[GgufType]) {
        let mut scales = Vec::new();
        let is_matrix = |t: &&mut Tensor| t.shape.len() == 2 && t.name.ends_with(".weight");
        for (i, t) in self.tensors.iter_mut().filter(is_matrix).enumerate() {
            let ty = types[i % types.len()];
            let elements: u64 = t.shape.iter().product();
            if !t.shape[1].is_multiple_of(ty.block_elements()) {
                continue;
            }
            (t.ty, t.bytes) = (ty, blocks(ty, elements / ty.block_elements(), i as u32));
            if ty == GgufType::Nvfp4 {
                scales.push(Tensor {
                    name: t.name.replace(".weight", ".scale"),
                    ty: GgufType::F32,
                    shape: vec![1],
                    bytes: 0.01f32.to_le_bytes().to_vec(),
                });
            }
        }
        self.tensors.extend(scales);
    }
}

/// Blocks of made-up codes with scales that give weights of about 0.1.
pub fn blocks(ty: GgufType, count: u64, seed: u32) -> Vec<u8> {
    let bytes = count * ty.block_bytes();
    let mut out: Vec<u8> =
        (0..bytes).map(|i| (hash(i as u32 ^ seed.wrapping_mul(0x9e37_79b9)) >> 11) as u8).collect();
    // Places of f16 scales with the size they should have, and of one that is a minimum.
    let (scales, size): (&[usize], f32) = match ty {
        GgufType::Q4_0 => (&[0], 0.02),
        GgufType::Q4_1 => (&[0, 2], 0.02),
        GgufType::Q5_0 => (&[0], 0.01),
        GgufType::Q5_1 => (&[0, 2], 0.01),
        GgufType::Q8_0 => (&[0], 0.001),
        GgufType::Q2K => (&[80, 82], 0.005),
        GgufType::Q3K => (&[108], 0.002),
        GgufType::Q4K => (&[0, 2], 0.0004),
        GgufType::Q5K => (&[0, 2], 0.0002),
        GgufType::Q6K => (&[208], 0.00005),
        GgufType::Iq4Nl => (&[0], 0.002),
        GgufType::Iq4Xs => (&[0], 0.0001),
        GgufType::Tq1_0 => (&[52], 0.1),
        GgufType::Tq2_0 => (&[64], 0.1),
        _ => (&[], 0.0),
    };
    for (i, block) in out.chunks_exact_mut(ty.block_bytes() as usize).enumerate() {
        for (j, &at) in scales.iter().enumerate() {
            let sign = if hash(i as u32 ^ seed) & 1 == 0 { 1.0 } else { -1.0 };
            let factor = 1.0 + (hash(2 * i as u32 + j as u32) & 15) as f32 / 16.0;
            // Minima of scale-and-minimum types have the size of the range.
            let range = if j == 1 && matches!(ty, GgufType::Q4_1 | GgufType::Q5_1) { -8.0 } else { 1.0 };
            let v = half::f16::from_f32(sign * size * factor * range);
            block[at..at + 2].copy_from_slice(&v.to_le_bytes());
        }
        match ty {
            GgufType::Mxfp4 => block[0] = 121 + (i % 4) as u8,
            GgufType::Nvfp4 => block[..4].iter_mut().for_each(|s| *s = 0x30 + (*s & 0x0f)),
            GgufType::Tq2_0 => block[..64].iter_mut().for_each(|v| {
                // Digits 0 to 2 only.
                *v &= !((*v & 0x55) << 1);
            }),
            _ => {}
        }
    }
    out
}

/// What GGUF files hold of an architecture.
///
/// # Panics
/// One that is not known.
pub fn family(model_type: &str) -> &'static Family {
    let known = KNOWN.gguf.iter().find(|known| known.model_type == model_type);
    &known.unwrap_or_else(|| panic!("{model_type} is not known")).family
}

/// ggml's name of a tensor.
fn ggml_name(family: &Family, name: &str) -> Option<String> {
    const TOP: [&str; 6] =
        ["token_embd", "position_embd", "token_types", "token_embd_norm", "output_norm", "output"];
    const BLOCK: [&str; 32] = [
        "attn_q_a",
        "attn_q_a_norm",
        "attn_q_b",
        "attn_kv_a_mqa",
        "attn_kv_a_norm",
        "attn_kv_b",
        "attn_norm",
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_qkv",
        "attn_output",
        "attn_q_norm",
        "attn_k_norm",
        "post_attention_norm",
        "attn_output_norm",
        "ffn_norm",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
        "post_ffw_norm",
        "layer_output_norm",
        "attn_sinks",
        "ffn_gate_inp",
        "ffn_gate_exps",
        "ffn_up_exps",
        "ffn_down_exps",
        "exp_probs_b",
        "ffn_gate_inp_shexp",
        "ffn_gate_shexp",
        "ffn_up_shexp",
        "ffn_down_shexp",
    ];
    let (module, kind) = name.rsplit_once('.')?;
    let layer = module.split('.').find(|part| part.bytes().all(|b| b.is_ascii_digit()));
    // Single tensors of the model's own checkpoints may have no kind.
    let kinds = if ["weight", "bias"].contains(&kind) { vec![kind] } else { vec!["weight", "bias"] };
    let parts = BLOCK.iter().flat_map(|part| kinds.iter().map(move |kind| format!("{part}.{kind}")));
    let block = layer.into_iter().flat_map(move |i| parts.clone().map(move |part| format!("blk.{i}.{part}")));
    let mut names = TOP.map(|part| format!("{part}.{kind}")).into_iter().chain(block);
    // Tensors of encoders may stand below a name of their own.
    let own = name.strip_prefix("bert.").unwrap_or(name);
    names.find(|ggml| family.tensor(ggml).as_deref() == Some(own))
}

/// Rows of each head in the order that llama.cpp's rotary embedding of neighbouring channels needs: reshape to
/// [heads, 2, half, ..], swap the middle axes.
fn paired(values: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let (k, head) = (values.len() / rows, rows / heads);
    let half = head / 2;
    let source = |row: usize| (row / head) * head + (row % 2) * half + row % head / 2;
    (0..rows).flat_map(|row| values[source(row) * k..][..k].iter().copied()).collect()
}

/// A checkpoint in f32 as `convert_hf_to_gguf.py` writes it.
///
/// # Panics
/// A checkpoint that cannot be read.
pub fn convert(source: std::sync::Arc<dyn ByteSource>, config: &Json) -> File {
    let weights = pollster::block_on(Weights::open(source, WeightPolicy::default())).expect("a checkpoint");
    // transformers 5 keeps all of the rotary embedding in one object.
    let mut config = config.clone();
    if let Json::Object(rope) = config["rope_parameters"].clone() {
        for name in ["rope_theta", "partial_rotary_factor"] {
            if let Some(v) = rope.get(name) {
                config[name] = v.clone();
            }
        }
        config["rope_scaling"] = Json::Object(rope);
    }
    let config = &config;
    let model = config["model_type"].as_str().expect("a model type").to_owned();
    let family = family(&model);
    let arch = family.name;
    let table: &TensorTable = weights.table();
    let mut out = File::default();
    let number = |name: &str| config[name].as_f64();
    let uint = |name: &str| config[name].as_u64();
    let heads = uint("num_attention_heads").expect("heads");
    let kv_heads = uint("num_key_value_heads").unwrap_or(heads);
    let hidden = uint("hidden_size").expect("hidden size");
    let head_dim = uint("head_dim").unwrap_or(hidden / heads);
    experts::metadata(&mut out, arch, config);
    let mut set = |key: &str, value: Value| out.set(&key.replace("{}", arch), value);
    set("general.architecture", Value::String(arch.into()));
    set("{}.block_count", Value::Uint(uint("num_hidden_layers").expect("layers")));
    set("{}.context_length", Value::Uint(uint("max_position_embeddings").expect("positions")));
    set("{}.embedding_length", Value::Uint(hidden));
    set("{}.feed_forward_length", Value::Uint(uint("intermediate_size").expect("intermediate size")));
    set("{}.attention.head_count", Value::Uint(heads));
    set("{}.attention.head_count_kv", Value::Uint(kv_heads));
    if let Some(rank) = uint("kv_lora_rank") {
        // As converters wrote it before they split kv_b.
        let dim = |name| uint(name).expect("channels of a head");
        let rotated = dim("qk_rope_head_dim");
        set("{}.attention.key_length", Value::Uint(dim("qk_nope_head_dim") + rotated));
        set("{}.attention.value_length", Value::Uint(dim("v_head_dim")));
        set("{}.attention.q_lora_rank", Value::Uint(uint("q_lora_rank").unwrap_or(0)));
        set("{}.attention.kv_lora_rank", Value::Uint(rank));
        set("{}.rope.dimension_count", Value::Uint(rotated));
    } else {
        set("{}.attention.key_length", Value::Uint(head_dim));
        set("{}.attention.value_length", Value::Uint(head_dim));
    }
    for (key, name) in [
        ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
        ("attention.layer_norm_epsilon", "layer_norm_eps"),
        ("rope.freq_base", "rope_theta"),
        ("rope.freq_base_swa", "rope_local_base_freq"),
        ("attn_logit_softcapping", "attn_logit_softcapping"),
        ("final_logit_softcapping", "final_logit_softcapping"),
        ("attention.scale", "attention_multiplier"),
        ("embedding_scale", "embedding_multiplier"),
        ("residual_scale", "residual_multiplier"),
        ("logit_scale", "logits_scaling"),
        ("logit_scale", "logit_scale"),
        ("attention.clamp_kqv", "clip_qkv"),
    ] {
        if let Some(v) = number(name) {
            set(&format!("{{}}.{key}"), Value::Float(v));
        }
    }
    if let Some(v) = number("query_pre_attn_scalar") {
        set("{}.attention.scale", Value::Float(1.0 / v.sqrt()));
    }
    if let Some(v) = number("partial_rotary_factor") {
        set("{}.rope.dimension_count", Value::Uint((v * head_dim as f64) as u64));
    }
    if let Some(v) = uint("sliding_window") {
        set("{}.attention.sliding_window", Value::Uint(v));
    }
    if config["use_sliding_window"] == true {
        let from = uint("max_window_layers").unwrap_or(28);
        let sliding = (0..uint("num_hidden_layers").unwrap_or(0)).map(|i| i >= from).collect();
        let pattern = girih_model::checkpoint::format::gguf::Array::Bool(sliding);
        set("{}.attention.sliding_window_pattern", Value::Array(pattern));
    }
    if let Some(v) = uint("sliding_window_pattern") {
        set("{}.attention.sliding_window_pattern", Value::Uint(v));
    }
    let rope = &config["rope_scaling"];
    let mut factors: Vec<(&str, Vec<f32>)> = Vec::new();
    let list = |name: &str| rope[name].as_array().map(|l| l.iter().map(|v| v.as_f64().unwrap_or(0.0) as f32));
    let original = rope["original_max_position_embeddings"].as_u64();
    match rope["rope_type"].as_str().or(rope["type"].as_str()) {
        Some("llama3") => {
            let get = |name: &str| rope[name].as_f64().expect("a number");
            let (factor, low, high) = (get("factor"), get("low_freq_factor"), get("high_freq_factor"));
            let old = get("original_max_position_embeddings");
            let base = number("rope_theta").expect("theta");
            let one = |i: u64| {
                let wavelength = 2.0 * std::f64::consts::PI * base.powf(2.0 * i as f64 / head_dim as f64);
                if wavelength < old / high {
                    return 1.0;
                }
                if wavelength > old / low {
                    return factor as f32;
                }
                let smooth = (old / wavelength - low) / (high - low);
                (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
            };
            factors.push(("rope_freqs.weight", (0..head_dim / 2).map(one).collect()));
        }
        Some(kind @ ("linear" | "yarn")) => {
            set("{}.rope.scaling.type", Value::String(kind.into()));
            set("{}.rope.scaling.factor", Value::Float(rope["factor"].as_f64().expect("a factor")));
            if let Some(original) = original {
                set("{}.rope.scaling.original_context_length", Value::Uint(original));
            }
            if let [Some(factor), Some(all), Some(own)] =
                ["factor", "mscale_all_dim", "mscale"].map(|name| rope[name].as_f64())
            {
                let magnitude = |scale: f64| 1.0 + 0.1 * scale * factor.ln();
                let attention = magnitude(own) / magnitude(all) / magnitude(1.0);
                set("{}.rope.scaling.yarn_log_multiplier", Value::Float(0.1 * all));
                set("{}.rope.scaling.attn_factor", Value::Float(attention));
            }
        }
        Some("dynamic") => {
            if let (Some(alpha), Some(theta)) = (rope["alpha"].as_f64(), number("rope_theta")) {
                let dim = head_dim as f64;
                set("{}.rope.freq_base", Value::Float(theta * alpha.powf(dim / (dim - 2.0))));
            }
        }
        Some("longrope") => {
            let original = uint("original_max_position_embeddings").expect("a trained length");
            let ratio = uint("max_position_embeddings").expect("positions") as f64 / original as f64;
            let factor = (1.0 + ratio.ln() / (original as f64).ln()).sqrt();
            set("{}.rope.scaling.original_context_length", Value::Uint(original));
            set("{}.rope.scaling.attn_factor", Value::Float(factor));
            factors.push(("rope_factors_long.weight", list("long_factor").expect("factors").collect()));
            factors.push(("rope_factors_short.weight", list("short_factor").expect("factors").collect()));
        }
        _ => {}
    }
    for (name, values) in factors {
        out.tensors.push(Tensor {
            name: name.into(),
            ty: GgufType::F32,
            shape: vec![values.len() as u64],
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        });
    }
    out.tensors.extend(experts::tensors(&weights, family));
    for info in table.iter().filter(|info| !experts::is_of_experts(&info.name)) {
        let Some(name) = ggml_name(family, &info.name) else { continue };
        let shape: Vec<u32> = info.shape.iter().map(|&d| d as u32).collect();
        let mut values = pollster::block_on(weights.f32(&info.name, &shape)).expect("floats");
        if family.pairs_rows {
            let rows = shape[0] as usize;
            if name.contains(".attn_q.") {
                values = paired(&values, rows, heads as usize);
            } else if name.contains(".attn_k.") {
                values = paired(&values, rows, kv_heads as usize);
            }
        }
        if family.plus_one && name.ends_with("norm.weight") {
            for v in &mut values {
                *v += 1.0;
            }
        }
        out.tensors.push(Tensor {
            name,
            ty: GgufType::F32,
            shape: info.shape.clone(),
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        });
    }
    out
}

/// The metadata of a tokenizer, as converters write them.
///
/// # Panics
/// A tokenizer of another kind.
pub fn tokenizer(out: &mut File, tokenizer: &Json, pre: &str) {
    use girih_model::checkpoint::format::gguf::Array;
    let model = &tokenizer["model"];
    let vocab = model["vocab"].as_object().expect("a vocabulary");
    let added = tokenizer["added_tokens"].as_array().expect("a list");
    let highest = vocab.values().chain(added.iter().map(|t| &t["id"])).filter_map(Json::as_u64).max();
    let mut tokens: Vec<String> = (0..=highest.expect("tokens")).map(|i| format!("[PAD{i}]")).collect();
    let mut kinds = vec![5i64; tokens.len()];
    for (token, id) in vocab {
        let id = id.as_u64().expect("an id") as usize;
        let is_byte = token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
        (tokens[id], kinds[id]) = (token.clone(), if is_byte { 6 } else { 1 });
    }
    for t in added {
        let id = t["id"].as_u64().expect("an id") as usize;
        t["content"].as_str().expect("a text").clone_into(&mut tokens[id]);
        kinds[id] = if t["special"] == true { 3 } else { 4 };
    }
    let find = |token: &str| tokens.iter().position(|t| t == token).map(|i| i as u64);
    let mut set = |key: &str, value: Value| out.set(&format!("tokenizer.ggml.{key}"), value);
    let strings = |list: Vec<String>| Value::Array(Array::String(list));
    match model["type"].as_str() {
        Some("WordPiece") => {
            set("model", Value::String("bert".into()));
            for (key, token) in [
                ("cls_token_id", "[CLS]"),
                ("seperator_token_id", "[SEP]"),
                ("unknown_token_id", "[UNK]"),
                ("padding_token_id", "[PAD]"),
            ] {
                set(key, Value::Uint(find(token).expect("a special token")));
            }
            for t in &mut tokens {
                *t = match t.strip_prefix("##") {
                    _ if t.starts_with('[') && t.ends_with(']') => continue,
                    Some(rest) => rest.to_owned(),
                    None => format!("▁{t}"),
                };
            }
        }
        Some("BPE") if model["byte_fallback"] == true => {
            set("model", Value::String("llama".into()));
            // SentencePiece gives merged pieces scores by the order of the merges, and characters lower ones.
            let merges = model["merges"].as_array().expect("merges");
            let mut scores = vec![-1e9; tokens.len()];
            for (rank, merge) in merges.iter().enumerate() {
                let merged: String =
                    merge.as_array().into_iter().flatten().filter_map(Json::as_str).collect();
                let id = find(&merged).expect("a merged piece") as usize;
                scores[id] = f64::max(scores[id], -(rank as f64));
            }
            // User-defined pieces of real files that this tokenizer.json has no merges for.
            for (id, token) in tokens.iter().enumerate() {
                if scores[id] <= -1e9 && token.chars().count() > 1 && kinds[id] == 1 {
                    kinds[id] = 5;
                }
            }
            set("scores", Value::Array(Array::Float(scores)));
            let unknown = model["unk_token"].as_str().and_then(find).expect("an unknown token");
            kinds[unknown as usize] = 2;
            set("unknown_token_id", Value::Uint(unknown));
            let bos = find("<s>").or(find("<bos>")).expect("a beginning");
            set("bos_token_id", Value::Uint(bos));
            let prefix = tokenizer["normalizer"].to_string().contains("Prepend");
            set("add_space_prefix", Value::Bool(prefix));
        }
        _ => {
            set("model", Value::String("gpt2".into()));
            set("pre", Value::String(pre.into()));
            let merges = model["merges"].as_array().expect("merges").iter();
            let joined = merges.map(|m| match m.as_array() {
                Some(pair) => pair.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(" "),
                None => m.as_str().unwrap_or_default().to_owned(),
            });
            set("merges", strings(joined.collect()));
            if let Some(bos) = find("<|begin_of_text|>").or(find("<｜begin▁of▁sentence｜>")) {
                set("bos_token_id", Value::Uint(bos));
                let begins = tokenizer["post_processor"].to_string().contains(&tokens[bos as usize]);
                set("add_bos_token", Value::Bool(begins));
            }
        }
    }
    set("token_type", Value::Array(Array::Int(kinds)));
    set("tokens", strings(tokens));
}

/// Values of a tensor of a golden, for tests that only need shape and values.
pub fn values(tensors: &Tensors, name: &str) -> (Vec<u64>, Vec<f32>) {
    let (shape, values) = tensors.f32(name);
    (shape.into_iter().map(|d| d as u64).collect(), values)
}

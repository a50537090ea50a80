//! Tiny checkpoints with seeded weights and odd shapes, one or more for every `model_type`.

mod dense;
mod mixtures;

use std::sync::Arc;

use girih_kernels::testing::hash;
use girih_model::network::arch::MODEL_TYPES;
use girih_model::network::config::LayerType;
use girih_model::{Config, MemorySource};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};

use crate::gguf;

/// A checkpoint that a test makes up.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// What is odd about it.
    pub name: &'static str,
    config: Value,
    dtype: Dtype,
}

/// `[hidden, heads, kv_heads, head_dim, intermediate, vocab]`
type Dims = [u32; 6];

impl Checkpoint {
    /// `model` names the `model_type` and, after a dash, the variation; `extra` overrides the configuration.
    ///
    /// # Panics
    /// `extra` that is not an object.
    pub fn new(name: &'static str, dtype: Dtype, dims: Dims, extra: &Value) -> Self {
        let [hidden, heads, kv_heads, head_dim, intermediate, vocab] = dims;
        let mut config = json!({
            "model_type": name.split('-').next(), "architectures": ["TestForCausalLM"], "vocab_size": vocab,
            "hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": 2,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim,
            "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
        });
        for (key, value) in extra.as_object().expect("an object") {
            config[key] = value.clone();
        }
        Self { name, config, dtype }
    }

    /// A decoder of a random type with random dimensions, the same for the same seed.
    pub fn random(seed: u32) -> Self {
        let pick = |salt: u32, from: &[u32]| from[hash(seed * 64 + salt) as usize % from.len()];
        let decoders: Vec<&str> = MODEL_TYPES.iter().copied().filter(|m| !Made::of(m).encoder).collect();
        let model = decoders[pick(0, &[hash(seed)]) as usize % decoders.len()];
        let kv_heads = pick(1, &[1, 1, 2, 3, 5]);
        let heads = kv_heads * pick(2, &[1, 2, 3, 4, 5, 7, 12]);
        let head_dim =
            pick(3, &[2, 4, 6, 8, 12, 18, 32, 40, 64, 66, 72, 80, 96, 100, 112, 128, 160, 192, 256, 320]);
        let hidden = pick(4, &[1, 2, 3, 5, 8, 31, 32, 33, 63, 64, 65, 96, 100, 129, 192, 250, 256, 260]);
        let intermediate = pick(5, &[1, 2, 3, 7, 16, 31, 33, 64, 65, 100, 128, 200, 255, 300]);
        let vocab = pick(6, &[2, 3, 5, 17, 63, 64, 65, 100, 127, 255, 256, 257, 1000, 1025]);
        let dtype = [Dtype::F32, Dtype::F16, Dtype::BF16][pick(7, &[0, 1, 2]) as usize];
        let flag = |salt: u32| pick(salt, &[0, 1]) == 1;
        let act = ["silu", "gelu", "relu"][pick(13, &[0, 1, 2]) as usize];
        let mut extra = json!({
            "tie_word_embeddings": flag(8), "attention_bias": flag(9), "mlp_bias": flag(10),
            "sliding_window": pick(11, &[1, 2, 5, 16, 33]), "use_sliding_window": flag(12), "max_window_layers": 1,
            "hidden_act": act,
        });
        // Few enough experts that any checkpoint is small.
        let experts = pick(16, &[1, 2, 3, 5, 8, 13]);
        for name in ["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"] {
            extra[name] = experts.into();
        }
        for name in ["num_experts_per_tok", "moe_topk", "moe_k"] {
            extra[name] = pick(17, &[1, 2, 3]).min(experts).into();
        }
        for name in ["moe_intermediate_size", "shared_expert_intermediate_size"] {
            extra[name] = pick(18, &[1, 7, 16, 33, 64]).into();
        }
        // Those of multi-head latent attention; others leave them out of account.
        extra["q_lora_rank"] = [Value::Null, 5.into(), 24.into()][pick(19, &[0, 1, 2]) as usize].clone();
        for (salt, name) in [(20, "kv_lora_rank"), (21, "qk_nope_head_dim"), (22, "v_head_dim")] {
            extra[name] = pick(salt, &[2, 6, 16, 20, 32, 48]).into();
        }
        extra["qk_rope_head_dim"] = pick(23, &[2, 8, 12, 64]).into();
        for name in ["n_group", "topk_group", "first_k_dense_replace"] {
            extra[name] = 1.into();
        }
        if model == "pangu_pro_moe" {
            extra["num_experts_per_tok"] = 1.into();
        }
        if model == "phimoe" {
            (extra["num_local_experts"], extra["num_experts_per_tok"]) = (5.into(), 2.into());
        }
        if model == "phi3" && !flag(14) {
            extra["sliding_window"] = Value::Null;
        }
        if model == "gemma2" && flag(15) {
            extra["attn_logit_softcapping"] = 2.5.into();
        }
        Self::new(
            Box::leak(format!("{model}-{seed}").into_boxed_str()),
            dtype,
            [hidden, heads, kv_heads, head_dim, intermediate, vocab],
            &extra,
        )
    }

    /// Its `config.json`.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// Its architecture.
    pub fn model_type(&self) -> &'static str {
        self.name.split_once('-').map_or(self.name, |(model, _)| model)
    }

    /// The files: `config.json` and `model.safetensors`.
    ///
    /// # Panics
    /// A configuration that girih refuses.
    pub fn source(&self) -> Arc<MemorySource> {
        let text = self.config.to_string();
        let config = Config::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let data: Vec<(String, Vec<usize>, Vec<u8>)> = (1..)
            .zip(tensors(&config))
            .map(|(seed, (name, shape))| {
                let bytes = encode(&values(&config, &name, &shape, seed), self.dtype);
                (name, shape.iter().map(|&d| d as usize).collect(), bytes)
            })
            .collect();
        let views = data.iter().map(|(name, shape, bytes)| {
            (name, TensorView::new(self.dtype, shape.clone(), bytes).expect("bytes of the shape"))
        });
        let weights = serialize(views, None).expect("tensors");
        Arc::new(
            MemorySource::new().with("config.json", text.into_bytes()).with("model.safetensors", weights),
        )
    }
}

fn encode(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

/// Matrices keep the size of what they multiply, norms are near 1, biases are small.
fn values(config: &Config, name: &str, shape: &[u32], seed: u32) -> Vec<f32> {
    let len: u32 = shape.iter().product();
    let is_norm = name.contains("norm") || name.contains("LayerNorm");
    let (center, width) = match shape {
        [_, _] if name.contains("embed") => (0.0, 1.0),
        [_, _] if is_norm => (1.0, 0.3),
        [.., _, k] => (0.0, (3.0 / *k as f32).sqrt()),
        _ if is_norm && !name.ends_with("bias") && !gguf::family(&config.model_type).plus_one => (1.0, 0.3),
        _ => (0.0, 0.3),
    };
    (0..len)
        .map(|i| {
            let bits = hash(i.wrapping_add(seed.wrapping_mul(0x9e37_79b9)));
            center + width * ((bits >> 8) as f32 / (1 << 23) as f32 - 1.0)
        })
        .collect()
}

/// Names and shapes of all tensors that the architecture has, as Hugging Face transformers names them.
fn tensors(config: &Config) -> Vec<(String, Vec<u32>)> {
    let made = Made::of(&config.model_type);
    let mut all = Vec::new();
    if made.encoder {
        bert(config, &mut all);
        return all;
    }
    let (c, f, v, d) = (config.hidden_size, config.intermediate_size, config.vocab_size, config.head_dim);
    let (q, kv) = (config.num_attention_heads * d, config.num_key_value_heads * d);
    let mut add = |name: String, shape: &[u32]| all.push((name, shape.to_vec()));
    add("model.embed_tokens.weight".into(), &[v, c]);
    add("model.norm.weight".into(), &[c]);
    if made.norm_biases {
        add("model.norm.bias".into(), &[c]);
    }
    if !config.tie_word_embeddings {
        add("lm_head.weight".into(), &[v, c]);
        if config.raw.get("lm_head_bias").and_then(Value::as_bool) == Some(true) {
            add("lm_head.bias".into(), &[v]);
        }
    }
    for i in 0..config.num_hidden_layers {
        let name = |module: &str, kind: &str| format!("model.layers.{i}.{module}.{kind}");
        for norm in made.norms {
            add(name(norm, "weight"), &[c]);
            if made.norm_biases {
                add(name(norm, "bias"), &[c]);
            }
        }
        if made.sinks {
            add(name("self_attn", "sinks"), &[config.num_attention_heads]);
        }
        let mut linear = |module: &str, n: u32, k: u32, bias: bool| {
            add(name(module, "weight"), &[n, k]);
            if bias {
                add(name(module, "bias"), &[n]);
            }
        };
        let heads = config.num_attention_heads;
        if config.layer_types[i as usize] == LayerType::Linear {
            linear("self_attn.qkv_proj", 3 * q, c, false);
            linear("self_attn.output_gate", q, c, false);
            linear("self_attn.out_proj", c, q, false);
        } else if let Some(latent) = config.latent {
            let query = heads * (latent.nope_dim + latent.rope_dim);
            match latent.q_rank {
                None => linear("self_attn.q_proj", query, c, false),
                Some(rank) => {
                    linear("self_attn.q_a_proj", rank, c, config.attention_bias);
                    linear("self_attn.q_b_proj", query, rank, false);
                }
            }
            let joint = latent.rank + latent.rope_dim;
            linear("self_attn.kv_a_proj_with_mqa", joint, c, config.attention_bias);
            linear("self_attn.kv_b_proj", heads * (latent.nope_dim + latent.value_dim), latent.rank, false);
        } else if made.fused.contains(&"qkv_proj") {
            linear("self_attn.qkv_proj", q + 2 * kv, c, false);
        } else {
            linear("self_attn.q_proj", q, c, config.attention_bias);
            linear("self_attn.k_proj", kv, c, config.attention_bias);
            linear("self_attn.v_proj", kv, c, config.attention_bias);
        }
        let sums = config.latent.map_or(q, |latent| heads * latent.value_dim);
        if config.layer_types[i as usize] != LayerType::Linear {
            linear("self_attn.o_proj", c, sums, config.attention_output_bias);
        }
        match (config.layer_experts(i as usize), made.experts) {
            (Some(layer), Some(experts)) => {
                for (part, shape) in experts.tensors(config, layer) {
                    add(format!("model.layers.{i}.{part}"), &shape);
                }
            }
            _ if made.fused.contains(&"gate_up_proj") => {
                linear("mlp.gate_up_proj", 2 * f, c, false);
                linear("mlp.down_proj", c, f, config.mlp_bias);
            }
            _ => {
                linear("mlp.gate_proj", f, c, config.mlp_bias);
                linear("mlp.up_proj", f, c, config.mlp_bias);
                linear("mlp.down_proj", c, f, config.mlp_bias);
            }
        }
        if config.layer_types[i as usize] == LayerType::Linear {
            add(name("self_attn.norm", "weight"), &[q]);
        }
        if let Some(latent) = config.latent {
            add(name("self_attn.kv_a_layernorm", "weight"), &[latent.rank]);
            if let Some(rank) = latent.q_rank {
                add(name("self_attn.q_a_layernorm", "weight"), &[rank]);
            }
        }
        let heads = match made.head_norms {
            HeadNorms::None => continue,
            HeadNorms::Whole => [vec![q], vec![kv]],
            HeadNorms::Configured | HeadNorms::PerHeadConfigured if !config.use_qk_norm => continue,
            HeadNorms::PerHead | HeadNorms::PerHeadConfigured => [vec![d], vec![d]],
            HeadNorms::Configured => {
                [config.num_attention_heads, config.num_key_value_heads].map(|h| vec![h, d])
            }
        };
        for (norm, shape) in made.head_norm_names.into_iter().zip(heads) {
            add(name(&format!("self_attn.{norm}"), "weight"), &shape);
        }
    }
    all
}

fn bert(config: &Config, all: &mut Vec<(String, Vec<u32>)>) {
    let (c, f) = (config.hidden_size, config.intermediate_size);
    let mut add = |name: String, shape: &[u32]| all.push((name, shape.to_vec()));
    for (table, rows) in [
        ("word", config.vocab_size),
        ("position", config.max_position_embeddings),
        ("token_type", config.type_vocab_size),
    ] {
        add(format!("embeddings.{table}_embeddings.weight"), &[rows, c]);
    }
    let mut norm = |name: &str| {
        add(format!("{name}.LayerNorm.weight"), &[c]);
        add(format!("{name}.LayerNorm.bias"), &[c]);
    };
    norm("embeddings");
    for i in 0..config.num_hidden_layers {
        norm(&format!("encoder.layer.{i}.attention.output"));
        norm(&format!("encoder.layer.{i}.output"));
    }
    let mut linear = |name: String, n: u32, k: u32| {
        add(format!("{name}.weight"), &[n, k]);
        add(format!("{name}.bias"), &[n]);
    };
    linear("pooler.dense".into(), c, c);
    let inner = config.num_attention_heads * config.head_dim;
    for i in 0..config.num_hidden_layers {
        for part in ["query", "key", "value"] {
            linear(format!("encoder.layer.{i}.attention.self.{part}"), inner, c);
        }
        linear(format!("encoder.layer.{i}.attention.output.dense"), c, inner);
        linear(format!("encoder.layer.{i}.intermediate.dense"), f, c);
        linear(format!("encoder.layer.{i}.output.dense"), c, f);
    }
}

/// Norms of queries and keys.
#[derive(Clone, Copy)]
enum HeadNorms {
    None,
    /// One weight for the channels of every head.
    PerHead,
    /// The same, if `use_qk_norm` says so.
    PerHeadConfigured,
    /// Weights of each head, if `use_qk_norm` says so.
    Configured,
    /// Weights of all heads together.
    Whole,
}

/// Name, element type, dimensions and further fields of the configuration.
type Odd = (&'static str, Dtype, Dims, Value);

/// How an architecture differs from Llama, and checkpoints of odd shapes.
#[derive(Clone, Copy)]
struct Made {
    model_type: &'static str,
    encoder: bool,
    norms: &'static [&'static str],
    head_norms: HeadNorms,
    head_norm_names: [&'static str; 2],
    /// Norms have biases.
    norm_biases: bool,
    /// Heads have a logit without a value.
    sinks: bool,
    experts: Option<mixtures::Experts>,
    /// Projections that are one tensor.
    fused: &'static [&'static str],
    odd: fn() -> Vec<Odd>,
}

impl Made {
    fn of(model_type: &str) -> &'static Self {
        let made = dense::MADE.iter().chain(mixtures::MADE).find(|made| made.model_type == model_type);
        made.unwrap_or_else(|| panic!("{model_type} has no entry in MADE"))
    }
}

const LLAMA: Made = Made {
    model_type: "llama",
    encoder: false,
    norms: &["input_layernorm", "post_attention_layernorm"],
    head_norms: HeadNorms::None,
    head_norm_names: ["q_norm", "k_norm"],
    norm_biases: false,
    sinks: false,
    experts: None,
    fused: &[],
    odd: Vec::new,
};
/// Shapes that no kernel can be tuned to: every model type; hidden sizes that are no multiple of 32, of 4, of 2;
/// 3, 5 and 9 query heads, alone and in groups; head dims 20 to 256; all element types, rope scalings, biases.
pub fn odd() -> Vec<Checkpoint> {
    let all = dense::MADE.iter().chain(mixtures::MADE).flat_map(|made| (made.odd)());
    all.map(|(name, dtype, dims, extra)| Checkpoint::new(name, dtype, dims, &extra)).collect()
}

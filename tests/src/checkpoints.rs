//! Tiny checkpoints with seeded weights and odd shapes, one or more for every `model_type`.

use std::sync::Arc;

use girih_kernels::testing::hash;
use girih_model::{Config, MemorySource};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};

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
        let decoders = girih_model::network::arch::MODEL_TYPES.len() - 1; // the last one is bert
        let model = girih_model::network::arch::MODEL_TYPES[pick(0, &[hash(seed)]) as usize % decoders];
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
        [_, k] => (0.0, (3.0 / *k as f32).sqrt()),
        _ if is_norm && !name.ends_with("bias") && !config.model_type.starts_with("gemma") => (1.0, 0.3),
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
    let model = config.model_type.as_str();
    let mut all = Vec::new();
    if model == "bert" {
        bert(config, &mut all);
        return all;
    }
    let (c, f, v, d) = (config.hidden_size, config.intermediate_size, config.vocab_size, config.head_dim);
    let (q, kv) = (config.num_attention_heads * d, config.num_key_value_heads * d);
    let mut add = |name: String, shape: &[u32]| all.push((name, shape.to_vec()));
    add("model.embed_tokens.weight".into(), &[v, c]);
    add("model.norm.weight".into(), &[c]);
    if !config.tie_word_embeddings {
        add("lm_head.weight".into(), &[v, c]);
    }
    let norms: &[&str] = match model {
        "cohere" => &["input_layernorm"],
        "olmo2" | "olmo3" => &["post_attention_layernorm", "post_feedforward_layernorm"],
        "glm4" => {
            &["input_layernorm", "post_attention_layernorm", "post_self_attn_layernorm", "post_mlp_layernorm"]
        }
        "gemma2" | "gemma3_text" => &[
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
        ],
        _ => &["input_layernorm", "post_attention_layernorm"],
    };
    for i in 0..config.num_hidden_layers {
        let name = |module: &str, kind: &str| format!("model.layers.{i}.{module}.{kind}");
        for norm in norms {
            add(name(norm, "weight"), &[c]);
        }
        let mut linear = |module: &str, n: u32, k: u32, bias: bool| {
            add(name(module, "weight"), &[n, k]);
            if bias {
                add(name(module, "bias"), &[n]);
            }
        };
        if model == "phi3" {
            linear("self_attn.qkv_proj", q + 2 * kv, c, false);
        } else {
            linear("self_attn.q_proj", q, c, config.attention_bias);
            linear("self_attn.k_proj", kv, c, config.attention_bias);
            linear("self_attn.v_proj", kv, c, config.attention_bias);
        }
        linear("self_attn.o_proj", c, q, config.attention_output_bias);
        if matches!(model, "phi3" | "glm4") {
            linear("mlp.gate_up_proj", 2 * f, c, false);
        } else {
            linear("mlp.gate_proj", f, c, config.mlp_bias);
            linear("mlp.up_proj", f, c, config.mlp_bias);
        }
        linear("mlp.down_proj", c, f, config.mlp_bias);
        let heads = match model {
            "qwen3" | "gemma3_text" => Some((d, d)),
            "olmo2" | "olmo3" => Some((q, kv)),
            _ => None,
        };
        if config.use_qk_norm {
            add(name("self_attn.q_norm", "weight"), &[config.num_attention_heads, d]);
            add(name("self_attn.k_norm", "weight"), &[config.num_key_value_heads, d]);
        }
        if let Some((q, k)) = heads {
            add(name("self_attn.q_norm", "weight"), &[q]);
            add(name("self_attn.k_norm", "weight"), &[k]);
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

/// Shapes that no kernel can be tuned to: every model type; hidden sizes that are no multiple of 32, of 4, of 2;
/// 3, 5 and 9 query heads, alone and in groups; head dims 20 to 256; all element types, rope scalings, biases.
pub fn odd() -> Vec<Checkpoint> {
    const F32: Dtype = Dtype::F32;
    const F16: Dtype = Dtype::F16;
    const BF16: Dtype = Dtype::BF16;
    let rope = |value: Value| json!({ "rope_scaling": value });
    let long: Vec<f64> = (0..24).map(|i| 1.0 + f64::from(i) * 0.4).collect();
    let short: Vec<f64> = (0..24).map(|i| 1.0 + f64::from(i) * 0.05).collect();
    let tied = json!({ "tie_word_embeddings": true });
    vec![
        Checkpoint::new(
            "llama-biases_linear",
            F32,
            [36, 3, 1, 20, 50, 77],
            &json!({
                "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true,
                "rope_scaling": { "type": "linear", "factor": 2.0 },
            }),
        ),
        Checkpoint::new(
            "llama-llama3",
            BF16,
            [50, 9, 3, 24, 77, 331],
            &rope(json!({
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            })),
        ),
        Checkpoint::new(
            "llama-yarn",
            F16,
            [100, 5, 1, 80, 50, 331],
            &rope(json!({
                "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32,
            })),
        ),
        // One head, odd rows of halves, 6 channels.
        Checkpoint::new("llama-odd_everything", F16, [33, 1, 1, 6, 7, 77], &json!({ "hidden_act": "relu" })),
        Checkpoint::new(
            "cohere",
            F32,
            [50, 5, 1, 24, 77, 77],
            &json!({ "tie_word_embeddings": true, "logit_scale": 0.25 }),
        ),
        Checkpoint::new(
            "cohere-qk_norm",
            F16,
            [36, 6, 2, 20, 50, 77],
            &json!({ "tie_word_embeddings": true, "logit_scale": 0.25, "use_qk_norm": true }),
        ),
        Checkpoint::new(
            "gemma2",
            F32,
            [36, 3, 1, 256, 50, 331],
            &json!({
                "tie_word_embeddings": true, "sliding_window": 5, "query_pre_attn_scalar": 200,
                "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0,
            }),
        ),
        Checkpoint::new(
            "gemma3_text",
            BF16,
            [100, 5, 5, 128, 77, 331],
            &json!({ "tie_word_embeddings": true, "sliding_window": 5, "sliding_window_pattern": 2 }),
        ),
        Checkpoint::new(
            "glm4",
            F16,
            [50, 9, 3, 20, 50, 77],
            &json!({ "attention_bias": true, "partial_rotary_factor": 0.5 }),
        ),
        Checkpoint::new(
            "granite",
            F32,
            [36, 3, 3, 96, 77, 77],
            &json!({
                "embedding_multiplier": 3.0, "residual_multiplier": 0.3, "attention_multiplier": 0.05,
                "logits_scaling": 2.0, "tie_word_embeddings": true,
                "rope_scaling": { "type": "dynamic", "factor": 2.0 },
            }),
        ),
        Checkpoint::new("mistral", F16, [100, 3, 1, 80, 77, 331], &json!({ "sliding_window": 5 })),
        Checkpoint::new("olmo2", BF16, [36, 9, 3, 24, 50, 331], &json!({})),
        Checkpoint::new(
            "olmo3",
            F16,
            [44, 6, 2, 20, 52, 117],
            &json!({"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 5}),
        ),
        Checkpoint::new(
            "phi3",
            F32,
            [50, 3, 1, 96, 77, 77],
            &json!({
                "partial_rotary_factor": 0.5, "original_max_position_embeddings": 32, "sliding_window": 5,
                "rope_scaling": { "type": "longrope", "long_factor": long, "short_factor": short },
            }),
        ),
        Checkpoint::new(
            "qwen2",
            F16,
            [100, 5, 1, 20, 50, 331],
            &json!({
                "tie_word_embeddings": true, "use_sliding_window": true, "sliding_window": 5,
                "max_window_layers": 1,
            }),
        ),
        Checkpoint::new("qwen3", BF16, [36, 9, 1, 80, 77, 331], &tied),
        Checkpoint::new("smollm3", F32, [50, 9, 3, 24, 50, 77], &json!({ "no_rope_layers": [1, 0] })),
        Checkpoint::new("bert", F32, [36, 3, 3, 12, 50, 77], &json!({ "architectures": ["BertModel"] })),
        Checkpoint::new(
            "bert-odd_hidden",
            F16,
            [50, 5, 5, 10, 77, 331],
            &json!({ "architectures": ["BertModel"], "hidden_act": "relu" }),
        ),
    ]
}

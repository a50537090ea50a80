//! Shapes of synthetic checkpoints, and the tensors that they have.

use serde_json::{Value, json};

use super::ExpertChoice;

/// Shape of a synthetic checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Name on the command line.
    pub name: &'static str,
    /// Architecture.
    pub family: Family,
    /// C.
    pub hidden_size: u32,
    /// F, of mixtures that of one expert.
    pub intermediate_size: u32,
    /// Layers.
    pub num_layers: u32,
    /// Query heads.
    pub num_q_heads: u32,
    /// Key/value heads.
    pub num_kv_heads: u32,
    /// Channels of a head.
    pub head_dim: u32,
    /// V.
    pub vocab_size: u32,
    /// Experts of a layer and of a token, of mixtures; no more than C.
    pub experts: [u32; 2],
    /// The head is the embedding.
    pub tied: bool,
}

/// Architecture of a preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama: dense.
    Llama,
    /// Qwen 3 MoE.
    Qwen3Moe,
    /// OLMoE.
    Olmoe,
    /// gpt-oss, experts stacked and transposed.
    GptOss,
}

const LLAMA: Preset = Preset {
    name: "llama",
    family: Family::Llama,
    hidden_size: 768,
    intermediate_size: 2048,
    num_layers: 12,
    num_q_heads: 12,
    num_kv_heads: 4,
    head_dim: 64,
    vocab_size: 4096,
    experts: [0, 0],
    tied: true,
};

/// Known presets; all have f16 weights. Those of a layer have one, and a vocabulary of 4096, so that the layer is what is
/// measured.
pub const PRESETS: &[Preset] = &[
    Preset { name: "llama-79m", ..LLAMA },
    // More bytes than the memory of a WASM module may take, in layers that a CPU device computes in time.
    Preset { name: "llama-300mb", num_layers: 22, vocab_size: 16_384, ..LLAMA },
    Preset {
        name: "llama-3.2-1b",
        hidden_size: 2048,
        intermediate_size: 8192,
        num_layers: 16,
        num_q_heads: 32,
        num_kv_heads: 8,
        vocab_size: 128_256,
        ..LLAMA
    },
    Preset {
        name: "llama-3.1-8b",
        hidden_size: 4096,
        intermediate_size: 14_336,
        num_layers: 32,
        num_q_heads: 32,
        num_kv_heads: 8,
        head_dim: 128,
        vocab_size: 128_256,
        ..LLAMA
    },
    Preset {
        name: "qwen3-moe-13m",
        family: Family::Qwen3Moe,
        hidden_size: 256,
        intermediate_size: 128,
        num_layers: 4,
        num_q_heads: 4,
        num_kv_heads: 2,
        experts: [32, 4],
        ..LLAMA
    },
    Preset {
        name: "qwen3-30b-a3b-layer",
        family: Family::Qwen3Moe,
        hidden_size: 2048,
        intermediate_size: 768,
        num_layers: 1,
        num_q_heads: 32,
        num_kv_heads: 4,
        head_dim: 128,
        experts: [128, 8],
        ..LLAMA
    },
    Preset {
        name: "gpt-oss-20b-layer",
        family: Family::GptOss,
        hidden_size: 2880,
        intermediate_size: 2880,
        num_layers: 1,
        num_q_heads: 64,
        num_kv_heads: 8,
        experts: [32, 4],
        ..LLAMA
    },
    Preset {
        name: "olmoe-1b-7b",
        family: Family::Olmoe,
        hidden_size: 2048,
        intermediate_size: 1024,
        num_layers: 16,
        num_q_heads: 16,
        num_kv_heads: 16,
        head_dim: 128,
        vocab_size: 50_304,
        experts: [64, 8],
        tied: false,
    },
];

/// What is in a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    Random,
    Ones,
    Zeros,
    /// Random, but in the channels of experts ones for those of the token and zeros for the others.
    Embedding(ExpertChoice),
    /// A one in channel e of row e, zeros elsewhere.
    Identity,
    /// Random behind so many rows of zeros.
    ZeroRows(u32),
    /// Random behind so many columns of zeros.
    ZeroColumns(u32),
}

pub(super) struct Tensor {
    pub name: String,
    pub shape: Vec<u32>,
    pub fill: Fill,
}

impl Preset {
    pub(super) fn config(&self) -> Value {
        let [experts, per_token] = self.experts;
        let f = self.intermediate_size;
        let mut config = json!({
            "vocab_size": self.vocab_size, "hidden_size": self.hidden_size, "intermediate_size": f,
            "num_hidden_layers": self.num_layers, "num_attention_heads": self.num_q_heads,
            "num_key_value_heads": self.num_kv_heads, "head_dim": self.head_dim, "hidden_act": "silu",
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500_000.0,
            "tie_word_embeddings": self.tied, "torch_dtype": "float16",
        });
        let more = match self.family {
            Family::Llama => json!({ "model_type": "llama", "architectures": ["LlamaForCausalLM"] }),
            Family::Qwen3Moe => json!({
                "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "num_experts": experts,
                "num_experts_per_tok": per_token, "moe_intermediate_size": f, "norm_topk_prob": true,
                "decoder_sparse_step": 1, "mlp_only_layers": [],
            }),
            Family::Olmoe => json!({
                "model_type": "olmoe", "architectures": ["OlmoeForCausalLM"], "num_experts": experts,
                "num_experts_per_tok": per_token, "norm_topk_prob": false,
            }),
            Family::GptOss => json!({
                "model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"], "num_local_experts": experts,
                "num_experts_per_tok": per_token, "sliding_window": 128, "swiglu_limit": 7.0,
            }),
        };
        if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
            config.extend(more);
        }
        config
    }

    /// All tensors, in the order in which they lie in the file.
    pub(super) fn tensors(&self, choice: ExpertChoice) -> Vec<Tensor> {
        let Self { hidden_size: c, intermediate_size: f, vocab_size: v, head_dim, .. } = *self;
        let (q, kv) = (self.num_q_heads * head_dim, self.num_kv_heads * head_dim);
        let [experts, _] = self.experts;
        let dense = self.family == Family::Llama;
        let norm = if dense { Fill::Random } else { Fill::Ones };
        let out = if dense { Fill::Random } else { Fill::ZeroRows(experts) };
        let table = if dense { Fill::Random } else { Fill::Embedding(choice) };
        let mut tensors = Vec::new();
        let mut add =
            |name: String, shape: &[u32], fill| tensors.push(Tensor { name, shape: shape.to_vec(), fill });
        add("model.embed_tokens.weight".into(), &[v, c], table);
        add("model.norm.weight".into(), &[c], norm);
        if !self.tied {
            add("lm_head.weight".into(), &[v, c], Fill::Random);
        }
        for i in 0..self.num_layers {
            let mut add =
                |name: &str, shape: &[u32], fill| add(format!("model.layers.{i}.{name}"), shape, fill);
            add("input_layernorm.weight", &[c], norm);
            add("post_attention_layernorm.weight", &[c], norm);
            for (name, rows) in [("q", q), ("k", kv), ("v", kv)] {
                add(&format!("self_attn.{name}_proj.weight"), &[rows, c], Fill::Random);
            }
            add("self_attn.o_proj.weight", &[c, q], out);
            match self.family {
                Family::Llama => {
                    add("mlp.gate_proj.weight", &[f, c], Fill::Random);
                    add("mlp.up_proj.weight", &[f, c], Fill::Random);
                    add("mlp.down_proj.weight", &[c, f], Fill::Random);
                    continue;
                }
                Family::GptOss => {
                    for (name, rows) in [("q", q), ("k", kv), ("v", kv), ("o", c)] {
                        add(&format!("self_attn.{name}_proj.bias"), &[rows], Fill::Zeros);
                    }
                    add("self_attn.sinks", &[self.num_q_heads], Fill::Zeros);
                    add("mlp.router.weight", &[experts, c], Fill::Identity);
                    add("mlp.router.bias", &[experts], Fill::Zeros);
                    add("mlp.experts.gate_up_proj", &[experts, c, 2 * f], Fill::Random);
                    add("mlp.experts.gate_up_proj_bias", &[experts, 2 * f], Fill::Zeros);
                    add("mlp.experts.down_proj", &[experts, f, c], Fill::ZeroColumns(experts));
                    add("mlp.experts.down_proj_bias", &[experts, c], Fill::Zeros);
                    continue;
                }
                Family::Qwen3Moe => {
                    add("self_attn.q_norm.weight", &[head_dim], norm);
                    add("self_attn.k_norm.weight", &[head_dim], norm);
                }
                Family::Olmoe => {
                    add("self_attn.q_norm.weight", &[q], norm);
                    add("self_attn.k_norm.weight", &[kv], norm);
                }
            }
            add("mlp.gate.weight", &[experts, c], Fill::Identity);
            for e in 0..experts {
                add(&format!("mlp.experts.{e}.gate_proj.weight"), &[f, c], Fill::Random);
                add(&format!("mlp.experts.{e}.up_proj.weight"), &[f, c], Fill::Random);
                add(&format!("mlp.experts.{e}.down_proj.weight"), &[c, f], out);
            }
        }
        tensors
    }
}

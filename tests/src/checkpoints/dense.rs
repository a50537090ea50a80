//! Checkpoints without experts.

use safetensors::Dtype;
use serde_json::json;

use super::{HeadNorms, LLAMA, Made};

const SANDWICH: &[&str] = &[
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
];
const POST: &[&str] = &["post_attention_layernorm", "post_feedforward_layernorm"];

/// Every architecture without experts.
pub(super) const MADE: &[Made] = &[
    Made {
        model_type: "llama",
        odd: || {
            vec![
                (
                    "llama-biases_linear",
                    Dtype::F32,
                    [36, 3, 1, 20, 50, 77],
                    json!({
                        "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true,
                        "rope_scaling": { "type": "linear", "factor": 2.0 },
                    }),
                ),
                (
                    "llama-llama3",
                    Dtype::BF16,
                    [50, 9, 3, 24, 77, 331],
                    json!({ "rope_scaling": {
                        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                        "original_max_position_embeddings": 32,
                    } }),
                ),
                (
                    "llama-yarn",
                    Dtype::F16,
                    [100, 5, 1, 80, 50, 331],
                    json!({ "rope_scaling": {
                        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32,
                    } }),
                ),
                // One head, odd rows of halves, 6 channels.
                ("llama-odd_everything", Dtype::F16, [33, 1, 1, 6, 7, 77], json!({ "hidden_act": "relu" })),
            ]
        },
        ..LLAMA
    },
    Made {
        model_type: "cohere",
        norms: &["input_layernorm"],
        head_norms: HeadNorms::Configured,
        odd: || {
            vec![
                (
                    "cohere",
                    Dtype::F32,
                    [50, 5, 1, 24, 77, 77],
                    json!({ "tie_word_embeddings": true, "logit_scale": 0.25 }),
                ),
                (
                    "cohere-qk_norm",
                    Dtype::F16,
                    [36, 6, 2, 20, 50, 77],
                    json!({ "tie_word_embeddings": true, "logit_scale": 0.25, "use_qk_norm": true }),
                ),
            ]
        },
        ..LLAMA
    },
    Made {
        model_type: "gemma2",
        norms: SANDWICH,
        odd: || {
            vec![(
                "gemma2",
                Dtype::F32,
                [36, 3, 1, 256, 50, 331],
                json!({
                    "tie_word_embeddings": true, "sliding_window": 5, "query_pre_attn_scalar": 200,
                    "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0,
                }),
            )]
        },
        ..LLAMA
    },
    Made {
        model_type: "gemma3_text",
        norms: SANDWICH,
        head_norms: HeadNorms::PerHead,
        odd: || {
            vec![(
                "gemma3_text",
                Dtype::BF16,
                [100, 5, 5, 128, 77, 331],
                json!({ "tie_word_embeddings": true, "sliding_window": 5, "sliding_window_pattern": 2 }),
            )]
        },
        ..LLAMA
    },
    Made {
        model_type: "glm4",
        norms: &[
            "input_layernorm",
            "post_attention_layernorm",
            "post_self_attn_layernorm",
            "post_mlp_layernorm",
        ],
        fused: &["gate_up_proj"],
        odd: || {
            vec![(
                "glm4",
                Dtype::F16,
                [50, 9, 3, 20, 50, 77],
                json!({ "attention_bias": true, "partial_rotary_factor": 0.5 }),
            )]
        },
        ..LLAMA
    },
    Made {
        model_type: "granite",
        odd: || {
            vec![(
                "granite",
                Dtype::F32,
                [36, 3, 3, 96, 77, 77],
                json!({
                    "embedding_multiplier": 3.0, "residual_multiplier": 0.3, "attention_multiplier": 0.05,
                    "logits_scaling": 2.0, "tie_word_embeddings": true,
                    "rope_scaling": { "type": "dynamic", "factor": 2.0 },
                }),
            )]
        },
        ..LLAMA
    },
    Made {
        model_type: "mistral",
        odd: || vec![("mistral", Dtype::F16, [100, 3, 1, 80, 77, 331], json!({ "sliding_window": 5 }))],
        ..LLAMA
    },
    Made {
        model_type: "olmo2",
        norms: POST,
        head_norms: HeadNorms::Whole,
        odd: || vec![("olmo2", Dtype::BF16, [36, 9, 3, 24, 50, 331], json!({}))],
        ..LLAMA
    },
    Made {
        model_type: "olmo3",
        norms: POST,
        head_norms: HeadNorms::Whole,
        odd: || {
            vec![(
                "olmo3",
                Dtype::F16,
                [44, 6, 2, 20, 52, 117],
                json!({"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 5}),
            )]
        },
        ..LLAMA
    },
    Made {
        model_type: "phi3",
        fused: &["qkv_proj", "gate_up_proj"],
        odd: || {
            let long: Vec<f64> = (0..24).map(|i| 1.0 + f64::from(i) * 0.4).collect();
            let short: Vec<f64> = (0..24).map(|i| 1.0 + f64::from(i) * 0.05).collect();
            vec![(
                "phi3",
                Dtype::F32,
                [50, 3, 1, 96, 77, 77],
                json!({
                    "partial_rotary_factor": 0.5, "original_max_position_embeddings": 32, "sliding_window": 5,
                    "rope_scaling": { "type": "longrope", "long_factor": long, "short_factor": short },
                }),
            )]
        },
        ..LLAMA
    },
    Made {
        model_type: "qwen2",
        odd: || {
            vec![(
                "qwen2",
                Dtype::F16,
                [100, 5, 1, 20, 50, 331],
                json!({
                    "tie_word_embeddings": true, "use_sliding_window": true, "sliding_window": 5,
                    "max_window_layers": 1,
                }),
            )]
        },
        ..LLAMA
    },
    Made {
        model_type: "qwen3",
        head_norms: HeadNorms::PerHead,
        odd: || vec![("qwen3", Dtype::BF16, [36, 9, 1, 80, 77, 331], json!({ "tie_word_embeddings": true }))],
        ..LLAMA
    },
    Made {
        model_type: "gemma",
        odd: || vec![("gemma", Dtype::F16, [50, 6, 2, 40, 77, 117], json!({ "tie_word_embeddings": true }))],
        ..LLAMA
    },
    Made {
        model_type: "smollm3",
        odd: || vec![("smollm3", Dtype::F32, [50, 9, 3, 24, 50, 77], json!({ "no_rope_layers": [1, 0] }))],
        ..LLAMA
    },
    Made {
        model_type: "bert",
        encoder: true,
        odd: || {
            vec![
                ("bert", Dtype::F32, [36, 3, 3, 12, 50, 77], json!({ "architectures": ["BertModel"] })),
                (
                    "bert-odd_hidden",
                    Dtype::F16,
                    [50, 5, 5, 10, 77, 331],
                    json!({ "architectures": ["BertModel"], "hidden_act": "relu" }),
                ),
            ]
        },
        ..LLAMA
    },
];

//! Checkpoints with mixtures of experts.

use girih_model::Config;
use girih_model::network::config::LayerExperts;
use safetensors::Dtype;
use serde_json::json;

use super::{HeadNorms, LLAMA, Made};

/// How an architecture keeps the parts of a mixture.
#[derive(Clone, Copy)]
pub(super) struct Experts {
    /// The mixture.
    scope: &'static str,
    /// Module of the router, and whether it has a bias.
    router: (&'static str, bool),
    /// Tensor that is added for the choice, and whether it is a row.
    choice_bias: Option<(&'static str, bool)>,
    /// Row of factors of the experts.
    expert_scale: Option<&'static str>,
    layout: Layout,
    /// The network that all tokens go through.
    shared: &'static str,
    /// Module of its gate.
    shared_gate: Option<&'static str>,
}

#[derive(Clone, Copy)]
enum Layout {
    /// `experts.N.gate_proj.weight`: names of gate, up and down.
    Separate([&'static str; 3]),
    /// `[E, 2I, C]`, `[E, C, I]`
    Stacked([&'static str; 2]),
    /// `[E, C, 2I]`, `[E, I, C]`, with biases
    Transposed([&'static str; 2]),
}

impl Experts {
    /// Names and shapes of the tensors of a layer, below it.
    pub(super) fn tensors(&self, config: &Config, layer: &LayerExperts) -> Vec<(String, Vec<u32>)> {
        let (c, e, i) = (config.hidden_size, layer.count, layer.intermediate_size);
        let mut all = Vec::new();
        let mut add =
            |name: String, shape: &[u32]| all.push((format!("{}.{name}", self.scope), shape.to_vec()));
        let (router, has_bias) = self.router;
        add(format!("{router}.weight"), &[e, c]);
        if has_bias {
            add(format!("{router}.bias"), &[e]);
        }
        match self.choice_bias {
            Some((name, true)) => add(name.into(), &[1, e]),
            Some((name, false)) => add(name.into(), &[e]),
            None => {}
        }
        if let Some(name) = self.expert_scale {
            add(name.into(), &[1, e]);
        }
        match self.layout {
            Layout::Separate([gate, up, down]) => {
                for n in 0..e {
                    add(format!("experts.{n}.{gate}.weight"), &[i, c]);
                    add(format!("experts.{n}.{up}.weight"), &[i, c]);
                    add(format!("experts.{n}.{down}.weight"), &[c, i]);
                }
            }
            Layout::Stacked([gate_up, down]) => {
                add(gate_up.into(), &[e, 2 * i, c]);
                add(down.into(), &[e, c, i]);
            }
            Layout::Transposed([gate_up, down]) => {
                add(gate_up.into(), &[e, c, 2 * i]);
                add(format!("{gate_up}_bias"), &[e, 2 * i]);
                add(down.into(), &[e, i, c]);
                add(format!("{down}_bias"), &[e, c]);
            }
        }
        if let Some(width) = layer.shared_intermediate_size {
            for (name, shape) in
                [("gate_proj", [width, c]), ("up_proj", [width, c]), ("down_proj", [c, width])]
            {
                add(format!("{}.{name}.weight", self.shared), &shape);
                if config.mlp_bias {
                    add(format!("{}.{name}.bias", self.shared), &shape[..1]);
                }
            }
            if let Some(gate) = self.shared_gate {
                add(format!("{gate}.weight"), &[1, c]);
            }
        }
        all
    }
}

const QWEN: Experts = Experts {
    scope: "mlp",
    router: ("gate", false),
    choice_bias: None,
    expert_scale: None,
    layout: Layout::Separate(["gate_proj", "up_proj", "down_proj"]),
    shared: "shared_experts",
    shared_gate: None,
};
const MIXTRAL: Experts =
    Experts { scope: "block_sparse_moe", layout: Layout::Separate(["w1", "w3", "w2"]), ..QWEN };

/// Every architecture with experts. Heads have one size, that of dense ones: what differs is not in attention, whose kernels
/// take long to compile.
pub(super) const MADE: &[Made] = &[
    Made {
        model_type: "mixtral",
        experts: Some(MIXTRAL),
        odd: || {
            vec![(
                "mixtral",
                Dtype::F16,
                [36, 3, 1, 20, 50, 77],
                json!({ "num_local_experts": 5, "num_experts_per_tok": 2, "tie_word_embeddings": true }),
            )]
        },
        ..LLAMA
    },
    Made {
        model_type: "qwen2_moe",
        experts: Some(Experts { shared: "shared_expert", shared_gate: Some("shared_expert_gate"), ..QWEN }),
        odd: || {
            vec![(
                "qwen2_moe",
                Dtype::BF16,
                [50, 5, 1, 20, 77, 77],
                json!({
                    "num_experts": 7, "num_experts_per_tok": 3, "moe_intermediate_size": 33,
                    "shared_expert_intermediate_size": 45, "norm_topk_prob": true,
                }),
            )]
        },
        ..LLAMA
    },
    Made {
        model_type: "qwen3_moe",
        head_norms: HeadNorms::PerHead,
        experts: Some(QWEN),
        odd: || {
            vec![(
                "qwen3_moe",
                Dtype::F32,
                [100, 9, 3, 20, 50, 331],
                json!({
                    "num_experts": 9, "num_experts_per_tok": 9, "moe_intermediate_size": 20,
                    "norm_topk_prob": true, "mlp_only_layers": [0],
                }),
            )]
        },
        ..LLAMA
    },
    Made {
        model_type: "olmoe",
        head_norms: HeadNorms::Whole,
        experts: Some(QWEN),
        odd: || {
            vec![(
                "olmoe",
                Dtype::BF16,
                [60, 3, 3, 20, 36, 77],
                json!({ "num_experts": 6, "num_experts_per_tok": 1 }),
            )]
        },
        ..LLAMA
    },
    Made {
        model_type: "granitemoe",
        experts: Some(Experts {
            scope: "block_sparse_moe",
            router: ("router.layer", false),
            layout: Layout::Stacked(["input_linear.weight", "output_linear.weight"]),
            ..QWEN
        }),
        odd: || {
            vec![(
                "granitemoe",
                Dtype::BF16,
                [36, 3, 3, 20, 50, 77],
                json!({
                    "num_local_experts": 11, "num_experts_per_tok": 4, "residual_multiplier": 0.3,
                    "embedding_multiplier": 3.0, "attention_multiplier": 0.05, "logits_scaling": 2.0,
                }),
            )]
        },
        ..LLAMA
    },
    Made {
        model_type: "glm4_moe",
        head_norms: HeadNorms::PerHeadConfigured,
        experts: Some(Experts { choice_bias: Some(("gate.e_score_correction_bias", false)), ..QWEN }),
        odd: || {
            vec![(
                "glm4_moe",
                Dtype::F32,
                [50, 9, 3, 20, 50, 77],
                json!({
                    "attention_bias": true, "use_qk_norm": true, "n_routed_experts": 12,
                    "num_experts_per_tok": 3, "moe_intermediate_size": 36, "n_shared_experts": 2, "n_group": 4,
                    "topk_group": 2, "routed_scaling_factor": 2.5,
                }),
            )]
        },
        ..LLAMA
    },
    Made {
        model_type: "deepseek_v3",
        experts: Some(Experts { choice_bias: Some(("gate.e_score_correction_bias", false)), ..QWEN }),
        odd: || {
            vec![(
                "deepseek_v3",
                Dtype::BF16,
                [50, 3, 3, 20, 50, 77],
                json!({
                    "q_lora_rank": 22, "kv_lora_rank": 18, "qk_nope_head_dim": 14, "qk_rope_head_dim": 6,
                    "v_head_dim": 10, "attention_bias": true, "n_routed_experts": 6, "num_experts_per_tok": 2,
                    "moe_intermediate_size": 36, "first_k_dense_replace": 1, "n_group": 3, "topk_group": 2,
                }),
            )]
        },
        ..LLAMA
    },
    Made {
        model_type: "ernie4_5_moe",
        experts: Some(Experts { choice_bias: Some(("moe_statics.e_score_correction_bias", true)), ..QWEN }),
        odd: || {
            vec![(
                "ernie4_5_moe",
                Dtype::F32,
                [36, 6, 2, 20, 77, 77],
                json!({
                    "moe_num_experts": 10, "moe_k": 4, "moe_intermediate_size": 25, "moe_num_shared_experts": 3,
                    "use_bias": true,
                }),
            )]
        },
        ..LLAMA
    },
    Made {
        model_type: "hunyuan_v1_moe",
        head_norms: HeadNorms::PerHead,
        head_norm_names: ["query_layernorm", "key_layernorm"],
        experts: Some(Experts { router: ("gate.wg", false), shared: "shared_mlp", ..QWEN }),
        odd: || {
            vec![(
                "hunyuan_v1_moe",
                Dtype::F32,
                [50, 5, 1, 20, 36, 77],
                json!({
                    "num_experts": 6, "moe_topk": [2, 3],
                    "rope_scaling": { "type": "dynamic", "alpha": 50.0, "factor": 1.0 },
                }),
            )]
        },
        ..LLAMA
    },
    Made {
        model_type: "gpt_oss",
        sinks: true,
        experts: Some(Experts {
            router: ("router", true),
            layout: Layout::Transposed(["experts.gate_up_proj", "experts.down_proj"]),
            ..QWEN
        }),
        odd: || {
            vec![(
                "gpt_oss",
                Dtype::BF16,
                [36, 6, 2, 20, 50, 77],
                json!({ "num_local_experts": 5, "num_experts_per_tok": 3, "sliding_window": 5 }),
            )]
        },
        ..LLAMA
    },
    Made {
        model_type: "minimax",
        experts: Some(MIXTRAL),
        odd: || {
            vec![(
                "minimax",
                Dtype::F32,
                [36, 3, 1, 20, 50, 77],
                json!({
                    "num_local_experts": 5, "linear_attn_alpha_factor": 1.5, "full_attn_beta_factor": 0.5,
                    "mlp_alpha_factor": 2.0,
                }),
            )]
        },
        ..LLAMA
    },
    Made {
        model_type: "pangu_pro_moe",
        experts: Some(Experts { shared: "shared_expert", expert_scale: Some("router_scale"), ..QWEN }),
        odd: || {
            vec![(
                "pangu_pro_moe",
                Dtype::BF16,
                [60, 3, 1, 20, 36, 77],
                json!({
                    "num_experts": 9, "num_experts_per_tok": 3, "moe_intermediate_size": 20,
                    "shared_expert_intermediate_size": 33,
                }),
            )]
        },
        ..LLAMA
    },
    Made {
        model_type: "phimoe",
        norm_biases: true,
        experts: Some(MIXTRAL),
        odd: || {
            vec![(
                "phimoe",
                Dtype::F32,
                [50, 9, 3, 20, 36, 77],
                json!({ "num_local_experts": 7, "attention_bias": true, "lm_head_bias": true }),
            )]
        },
        ..LLAMA
    },
];

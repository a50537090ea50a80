//! Families of models in GGUF files: what ggml calls a tensor, and what converters did to it.

/// Pairs of names: ggml's and that of Hugging Face.
type Names = &'static [(&'static str, &'static str)];

/// A value of `general.architecture`.
#[derive(Debug)]
pub(super) struct Family {
    /// ggml's name.
    pub name: &'static str,
    /// `model_type`.
    pub model_type: &'static str,
    /// Class with a language-model head.
    pub class: &'static str,
    /// Query and key rows of a head lie with the two channels of a rotated pair beside each other; the model's own
    /// order has the first channels of all pairs in front.
    pub pairs_rows: bool,
    /// Norms hold 1 + w, where the model's own checkpoints hold w.
    pub plus_one: bool,
    /// Names of a layer's modules that differ from [`BLOCK`].
    block: Names,
}

/// Modules of a layer.
const BLOCK: Names = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_qkv", "self_attn.qkv_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];
const GEMMA: Names = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];
const BERT: Names = &[
    ("attn_q", "attention.self.query"),
    ("attn_k", "attention.self.key"),
    ("attn_v", "attention.self.value"),
    ("attn_output", "attention.output.dense"),
    ("attn_output_norm", "attention.output.LayerNorm"),
    ("ffn_up", "intermediate.dense"),
    ("ffn_down", "output.dense"),
    ("layer_output_norm", "output.LayerNorm"),
];

const fn family(name: &'static str, model_type: &'static str, class: &'static str) -> Family {
    Family { name, model_type, class, pairs_rows: false, plus_one: false, block: &[] }
}

/// The families that are known.
pub(super) const FAMILIES: [Family; 12] = [
    Family { block: BERT, ..family("bert", "bert", "BertModel") },
    family("command-r", "cohere", "CohereForCausalLM"),
    Family { plus_one: true, block: GEMMA, ..family("gemma2", "gemma2", "Gemma2ForCausalLM") },
    Family { plus_one: true, block: GEMMA, ..family("gemma3", "gemma3_text", "Gemma3ForCausalLM") },
    Family {
        block: &[
            ("post_attention_norm", "post_self_attn_layernorm"),
            ("post_ffw_norm", "post_mlp_layernorm"),
            ("ffn_up", "mlp.gate_up_proj"),
        ],
        ..family("glm4", "glm4", "Glm4ForCausalLM")
    },
    Family { pairs_rows: true, ..family("granite", "granite", "GraniteForCausalLM") },
    Family { pairs_rows: true, ..family("llama", "llama", "LlamaForCausalLM") },
    Family {
        block: &[
            ("post_attention_norm", "post_attention_layernorm"),
            ("post_ffw_norm", "post_feedforward_layernorm"),
        ],
        ..family("olmo2", "olmo2", "Olmo2ForCausalLM")
    },
    Family { block: &[("ffn_up", "mlp.gate_up_proj")], ..family("phi3", "phi3", "Phi3ForCausalLM") },
    family("qwen2", "qwen2", "Qwen2ForCausalLM"),
    family("qwen3", "qwen3", "Qwen3ForCausalLM"),
    Family { pairs_rows: true, ..family("smollm3", "smollm3", "SmolLM3ForCausalLM") },
];

impl Family {
    /// The family of a value of `general.architecture`.
    pub fn of(name: &str) -> Option<&'static Self> {
        FAMILIES.iter().find(|f| f.name == name)
    }

    /// The name that the model's own checkpoints give a tensor; `None` for tensors that they do not have.
    pub fn tensor(&self, name: &str) -> Option<String> {
        let (module, kind) = name.rsplit_once('.')?;
        if let Some(rest) = module.strip_prefix("blk.") {
            let (layer, part) = rest.split_once('.')?;
            let find = |names: Names| names.iter().find(|(ggml, _)| *ggml == part).map(|(_, own)| *own);
            if self.model_type == "bert" {
                return find(self.block).map(|own| format!("encoder.layer.{layer}.{own}.{kind}"));
            }
            let own = find(self.block).or_else(|| find(BLOCK))?;
            return Some(format!("model.layers.{layer}.{own}.{kind}"));
        }
        let own = match (self.model_type, module) {
            ("bert", "token_embd") => "embeddings.word_embeddings",
            ("bert", "position_embd") => "embeddings.position_embeddings",
            ("bert", "token_types") => "embeddings.token_type_embeddings",
            ("bert", "token_embd_norm") => "embeddings.LayerNorm",
            (_, "token_embd") => "model.embed_tokens",
            (_, "output_norm") => "model.norm",
            (_, "output") => "lm_head",
            _ => return None,
        };
        Some(format!("{own}.{kind}"))
    }

    /// Whether a tensor's rows lie pair by pair, with the metadata key of its number of heads.
    pub fn paired_rows(&self, name: &str) -> Option<&'static str> {
        let part = name.strip_prefix("blk.")?.split_once('.')?.1;
        match part {
            "attn_q.weight" | "attn_q.bias" if self.pairs_rows => Some("attention.head_count"),
            "attn_k.weight" | "attn_k.bias" if self.pairs_rows => Some("attention.head_count_kv"),
            _ => None,
        }
    }

    /// Whether a tensor serves something else than the states and logits of the model: heads of rerankers and
    /// classifiers, activation scales of engines that quantise activations.
    pub fn is_for_others(&self, name: &str) -> bool {
        let of_bert = self.model_type == "bert" && (name.starts_with("cls.") || name.starts_with("cls_"));
        of_bert || name.ends_with(".input_scale")
    }

    /// Whether a tensor holds 1 + w.
    pub fn is_plus_one(&self, name: &str) -> bool {
        self.plus_one && name.ends_with("norm.weight")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name = |family: &str, name: &str| Family::of(family).expect("known").tensor(name);
        for (family, ggml, own) in [
            ("llama", "token_embd.weight", "model.embed_tokens.weight"),
            ("llama", "blk.12.attn_q.bias", "model.layers.12.self_attn.q_proj.bias"),
            ("llama", "blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
            ("llama", "blk.0.ffn_up.scale", "model.layers.0.mlp.up_proj.scale"),
            ("gemma2", "blk.0.ffn_norm.weight", "model.layers.0.pre_feedforward_layernorm.weight"),
            ("glm4", "blk.1.ffn_norm.weight", "model.layers.1.post_attention_layernorm.weight"),
            ("glm4", "blk.1.post_attention_norm.weight", "model.layers.1.post_self_attn_layernorm.weight"),
            ("phi3", "blk.1.ffn_up.weight", "model.layers.1.mlp.gate_up_proj.weight"),
            ("bert", "blk.1.ffn_up.weight", "encoder.layer.1.intermediate.dense.weight"),
            ("bert", "token_types.weight", "embeddings.token_type_embeddings.weight"),
        ] {
            assert_eq!(name(family, ggml).as_deref(), Some(own));
        }
        assert_eq!((name("llama", "rope_freqs.weight"), name("llama", "blk.3")), (None, None));
    }
}

//! Families of models in GGUF files: what ggml calls a tensor, and what converters did to it.

use serde_json::{Map, Value};

use super::config::Metadata;
use crate::LoadError;

/// Pairs of names: ggml's and that of Hugging Face.
pub type Names = &'static [(&'static str, &'static str)];

/// An architecture as GGUF files hold it.
#[derive(Clone, Copy, Debug)]
pub struct Architecture {
    /// `model_type`.
    pub model_type: &'static str,
    /// What the names of its models begin with: `Llama` of `LlamaForCausalLM`.
    pub class: &'static str,
    /// Whether the network has biases of q, k and v, of the attention's output, and of the MLP; `None`: as the file.
    pub biases: [Option<bool>; 3],
    /// What the files say.
    pub family: Family,
}

/// A value of `general.architecture`.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// ggml's name. Several architectures may have one.
    pub name: &'static str,
    /// Of architectures with the same name: this is the one whose files have a sliding window.
    pub windowed: bool,
    /// Of architectures with the same name: this is the one whose files have experts.
    pub mixture: bool,
    /// Positions are embedded, tokens see those behind them, and modules have the names of BERT.
    pub encoder: bool,
    /// Query and key rows of a head lie with the two channels of a rotated pair beside each other; the model's own
    /// order has the first channels of all pairs in front.
    pub pairs_rows: bool,
    /// Norms hold 1 + w, where the model's own checkpoints hold w.
    pub plus_one: bool,
    /// Attention is multi-head latent: its sizes have keys of their own, which [`Family::fields`] reads.
    pub latent: bool,
    /// Scores have a factor of their own (`attention.scale`), which [`Family::fields`] reads.
    pub scaled_scores: bool,
    /// Names of a layer's modules, or single tensors with their kind, that differ from Llama's.
    pub block: Names,
    /// Adds the fields of `config.json` that this architecture alone has, or changes others.
    pub fields: fn(&Metadata<'_>, &mut Map<String, Value>) -> Result<(), LoadError>,
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
    ("attn_q_a", "self_attn.q_a_proj"),
    ("attn_q_a_norm", "self_attn.q_a_layernorm"),
    ("attn_q_b", "self_attn.q_b_proj"),
    ("attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"),
    ("attn_kv_a_norm", "self_attn.kv_a_layernorm"),
    ("attn_kv_b", "self_attn.kv_b_proj"),
    ("attn_k_b", "self_attn.k_b_proj"),
    ("attn_v_b", "self_attn.v_b_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("ffn_gate_inp", "mlp.gate"),
    ("ffn_gate_exps", "mlp.experts.gate_proj"),
    ("ffn_up_exps", "mlp.experts.up_proj"),
    ("ffn_gate_up_exps", "mlp.experts.gate_up_proj"),
    ("ffn_down_exps", "mlp.experts.down_proj"),
    ("exp_probs_b.bias", "mlp.gate.e_score_correction_bias"),
    ("ffn_gate_shexp", "mlp.shared_experts.gate_proj"),
    ("ffn_up_shexp", "mlp.shared_experts.up_proj"),
    ("ffn_down_shexp", "mlp.shared_experts.down_proj"),
];
/// Router and experts as Mixtral calls them.
pub const MIXTRAL_EXPERTS: Names = &[
    ("ffn_gate_inp", "block_sparse_moe.gate"),
    ("ffn_gate_exps", "block_sparse_moe.experts.w1"),
    ("ffn_up_exps", "block_sparse_moe.experts.w3"),
    ("ffn_gate_up_exps", "block_sparse_moe.experts.gate_up_proj"),
    ("ffn_down_exps", "block_sparse_moe.experts.w2"),
];
/// Norms before and after attention and MLP, as Gemma calls them.
pub const SANDWICH_NORMS: Names = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];
/// Norms after attention and MLP only.
pub const POST_NORMS: Names =
    &[("post_attention_norm", "post_attention_layernorm"), ("post_ffw_norm", "post_feedforward_layernorm")];
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

impl Family {
    /// That of an architecture of which no files are known.
    pub const NONE: Self = Self::named("");

    /// A family whose files are like Llama's, but for the order of rows.
    pub const fn named(name: &'static str) -> Self {
        Self {
            name,
            windowed: false,
            mixture: false,
            encoder: false,
            pairs_rows: false,
            plus_one: false,
            latent: false,
            scaled_scores: false,
            block: &[],
            fields: |_, _| Ok(()),
        }
    }

    /// The name that the model's own checkpoints give a tensor; `None` for tensors that they do not have.
    pub fn tensor(&self, name: &str) -> Option<String> {
        let (module, kind) = name.rsplit_once('.')?;
        if let Some(rest) = module.strip_prefix("blk.") {
            let (layer, part) = rest.split_once('.')?;
            let find = |names: Names| names.iter().find(|(ggml, _)| *ggml == part).map(|(_, own)| *own);
            if self.encoder {
                return find(BERT).map(|own| format!("encoder.layer.{layer}.{own}.{kind}"));
            }
            // Names with a dot are those of tensors, others of modules.
            let tensor = format!("{part}.{kind}");
            let whole = |names: Names| names.iter().find(|(ggml, _)| *ggml == tensor).map(|(_, own)| *own);
            if let Some(own) = whole(self.block).or_else(|| whole(BLOCK)) {
                return Some(format!("model.layers.{layer}.{own}"));
            }
            let own = find(self.block).or_else(|| find(BLOCK))?;
            return Some(format!("model.layers.{layer}.{own}.{kind}"));
        }
        let own = match (self.encoder, module) {
            (true, "token_embd") => "embeddings.word_embeddings",
            (true, "position_embd") => "embeddings.position_embeddings",
            (true, "token_types") => "embeddings.token_type_embeddings",
            (true, "token_embd_norm") => "embeddings.LayerNorm",
            (_, "token_embd") => "model.embed_tokens",
            (_, "output_norm") => "model.norm",
            (_, "output") => "lm_head",
            _ => return None,
        };
        Some(format!("{own}.{kind}"))
    }

    /// Whether a tensor's rows lie pair by pair, with the metadata key of its number of heads.
    pub(super) fn paired_rows(&self, name: &str) -> Option<&'static str> {
        let part = name.strip_prefix("blk.")?.split_once('.')?.1;
        match part {
            "attn_q.weight" | "attn_q.bias" if self.pairs_rows => Some("attention.head_count"),
            "attn_k.weight" | "attn_k.bias" if self.pairs_rows => Some("attention.head_count_kv"),
            _ => None,
        }
    }

    /// Whether a tensor serves something else than the states and logits of the model: heads of rerankers and
    /// classifiers, activation scales of engines that quantise activations.
    pub(super) fn is_for_others(&self, name: &str) -> bool {
        let of_bert = self.encoder && (name.starts_with("cls.") || name.starts_with("cls_"));
        of_bert || name.ends_with(".input_scale")
    }

    /// Whether a tensor holds 1 + w.
    pub(super) fn is_plus_one(&self, name: &str) -> bool {
        self.plus_one && name.ends_with("norm.weight")
    }
}

#[cfg(test)]
mod tests {
    use crate::network::arch::KNOWN;

    #[test]
    fn names() {
        let name = |family: &str, name: &str| {
            let mut known = KNOWN.gguf.iter().map(|architecture| architecture.family);
            known.find(|known| known.name == family).expect("known").tensor(name)
        };
        for (family, ggml, own) in [
            ("llama", "token_embd.weight", "model.embed_tokens.weight"),
            ("llama", "blk.12.attn_q.bias", "model.layers.12.self_attn.q_proj.bias"),
            ("llama", "blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
            ("llama", "blk.0.ffn_up.scale", "model.layers.0.mlp.up_proj.scale"),
            ("gemma2", "blk.0.ffn_norm.weight", "model.layers.0.pre_feedforward_layernorm.weight"),
            ("glm4", "blk.1.ffn_norm.weight", "model.layers.1.post_attention_layernorm.weight"),
            ("glm4", "blk.1.post_attention_norm.weight", "model.layers.1.post_self_attn_layernorm.weight"),
            ("qwen3moe", "blk.0.ffn_down_exps.weight", "model.layers.0.mlp.experts.down_proj.weight"),
            ("qwen2moe", "blk.0.ffn_gate_inp_shexp.weight", "model.layers.0.mlp.shared_expert_gate.weight"),
            ("phi3", "blk.1.ffn_up.weight", "model.layers.1.mlp.gate_up_proj.weight"),
            ("bert", "blk.1.ffn_up.weight", "encoder.layer.1.intermediate.dense.weight"),
            ("bert", "token_types.weight", "embeddings.token_type_embeddings.weight"),
        ] {
            assert_eq!(name(family, ggml).as_deref(), Some(own));
        }
        assert_eq!((name("llama", "rope_freqs.weight"), name("llama", "blk.3")), (None, None));
    }
}

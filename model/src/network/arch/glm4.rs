//! GLM 4: norms before and after attention and MLP, interleaved rotary embedding of the first channels of a head,
//! fused `gate_up_proj`, biases of q, k and v.

use crate::checkpoint::format::gguf::Family;
use crate::network::config::class::{Bias, Class};
use crate::error::LoadError;
use crate::network::layers::build::Build;
use crate::network::layers::{AttentionSpec, Decoder};

const NORMS: [&str; 4] =
    ["input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"];

pub(super) const CLASS: Class = Class {
    name: "Glm4",
    vocab_size: 151_552,
    intermediate_size: 13_696,
    layers: 40,
    kv_heads: Some(2),
    head_dim: Some(128),
    max_position_embeddings: 131_072,
    eps: 1.5625e-7,
    biases: [Bias::Configured(true), Bias::Fixed(false), Bias::Fixed(false)],
    partial: 0.5,
    eos_token_ids: &[151_329, 151_336, 151_338],
    pad_token_id: Some(151_329),
    ..Class::DECODER
};

pub(super) const GGUF: Family = Family {
    block: &[
        ("post_attention_norm", "post_self_attn_layernorm"),
        ("post_ffw_norm", "post_mlp_layernorm"),
        ("ffn_up", "mlp.gate_up_proj"),
    ],
    ..Family::named("glm4")
};

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let blocks = b.sandwich_blocks(NORMS, AttentionSpec::interleaved).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

//! Gemma 3 (text): Gemma 2 without soft-capping, with norms of each query and key head and two rotary
//! embeddings: a local one in sliding layers, a global one in full layers; embeddings times `sqrt(C)`.

use crate::network::config::class::{Class, LocalRope, Slides};
use crate::error::LoadError;
use crate::network::layers::build::{Build, GEMMA_NORMS};
use crate::network::layers::{AttentionSpec, Decoder, HeadNorm};

pub(super) const CLASS: Class = Class {
    name: "Gemma3",
    vocab_size: 262_208,
    hidden_size: 2304,
    intermediate_size: 9216,
    layers: 26,
    heads: 8,
    kv_heads: Some(4),
    head_dim: Some(256),
    max_position_embeddings: 131_072,
    scaling_included: true,
    act_field: "hidden_activation",
    act: "gelu_pytorch_tanh",
    tie: true,
    theta: 1e6,
    local_rope: LocalRope::Base(10_000.0),
    slides: Slides::Pattern(6),
    sliding_window: Some(4096),
    softcaps: Some([None, None]),
    query_pre_attn_scalar: Some(256.0),
    refused_flags: &["use_bidirectional_attention"],
    bos_token_id: Some(2),
    eos_token_ids: &[1],
    pad_token_id: Some(0),
    ..Class::DECODER
};

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let spec = |spec| AttentionSpec { qk_norm: HeadNorm::PerHead, plus_one: true, ..spec };
    let blocks = b.sandwich_blocks(GEMMA_NORMS, spec).await?;
    b.decoder(blocks, b.rms_plus_one(&b.weights, "norm").await?).await
}

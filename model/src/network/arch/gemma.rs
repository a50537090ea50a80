//! Gemma: Llama with norms of a factor 1 + w, a GELU in the gate, embeddings times `sqrt(C)` and a width of heads of its
//! own.

use crate::checkpoint::format::gguf::Family;
use crate::error::LoadError;
use crate::network::config::class::Class;
use crate::network::layers::build::Build;
use crate::network::layers::{AttentionSpec, Decoder};

pub(super) const CLASS: Class = Class {
    name: "Gemma",
    vocab_size: 256_000,
    hidden_size: 3072,
    intermediate_size: 24_576,
    layers: 28,
    heads: 16,
    kv_heads: Some(16),
    head_dim: Some(256),
    max_position_embeddings: 8192,
    act: "gelu_pytorch_tanh",
    gelu_is_tanh: true,
    tie: true,
    root_of_hidden: true,
    refused_flags: &["use_bidirectional_attention"],
    bos_token_id: Some(2),
    eos_token_ids: &[1],
    pad_token_id: Some(0),
    ..Class::DECODER
};

pub(super) const GGUF: Family = Family { plus_one: true, ..Family::named("gemma") };

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let blocks = b.pre_norm_blocks(1.0, |spec| AttentionSpec { plus_one: true, ..spec }).await?;
    b.decoder(blocks, b.rms_plus_one(&b.weights, "norm").await?).await
}

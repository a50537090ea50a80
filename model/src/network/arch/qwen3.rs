//! Qwen 3: Llama with RMS norms of each query and key head before the rotary embedding.

use crate::checkpoint::format::gguf::Family;
use crate::network::config::class::{Class, Slides};
use crate::error::LoadError;
use crate::network::layers::build::Build;
use crate::network::layers::{AttentionSpec, Decoder, HeadNorm};

pub(super) const CLASS: Class = Class {
    name: "Qwen3",
    vocab_size: 151_936,
    intermediate_size: 22_016,
    kv_heads: Some(32),
    head_dim: Some(128),
    max_position_embeddings: 32_768,
    slides: Slides::From(28),
    sliding_window: Some(4096),
    ..Class::DECODER
};

pub(super) const GGUF: Family = Family::named("qwen3");

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let spec = |spec| AttentionSpec { qk_norm: HeadNorm::PerHead, ..spec };
    let blocks = b.pre_norm_blocks(1.0, spec).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

//! Gemma 3 (text): Gemma 2 without soft-capping, with norms of each query and key head and two rotary
//! embeddings: a local one in sliding layers, a global one in full layers; embeddings times `sqrt(C)`.

use crate::error::LoadError;
use crate::layers::build::{Build, GEMMA_NORMS};
use crate::layers::{AttentionSpec, Decoder, HeadNorm};

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let spec = |spec| AttentionSpec { qk_norm: HeadNorm::PerHead, plus_one: true, ..spec };
    let blocks = b.sandwich_blocks(GEMMA_NORMS, spec).await?;
    b.decoder(blocks, b.rms_plus_one(&b.weights, "norm").await?).await
}

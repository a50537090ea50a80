//! Gemma 2: norms before and after attention and MLP, all with a factor 1 + w; soft-capped scores and logits;
//! every other layer sees a sliding window; embeddings times `sqrt(C)`.

use crate::error::LoadError;
use crate::layers::build::{Build, GEMMA_NORMS};
use crate::layers::{AttentionSpec, Decoder};

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let blocks = b.sandwich_blocks(GEMMA_NORMS, |spec| AttentionSpec { plus_one: true, ..spec }).await?;
    b.decoder(blocks, b.rms_plus_one(&b.weights, "norm").await?).await
}

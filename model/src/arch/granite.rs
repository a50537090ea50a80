//! Granite 3: Llama with four constant factors: of embeddings, scores, residuals and logits.

use crate::error::LoadError;
use crate::layers::build::{Build, Scales};
use crate::layers::{AttentionSpec, Decoder};

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let cfg = b.cfg;
    let spec = |spec| AttentionSpec { scale: cfg.attention_multiplier, ..spec };
    let blocks = b.pre_norm_blocks(cfg.residual_multiplier, spec).await?;
    let scales =
        Scales { embedding: cfg.embedding_multiplier, logits: 1.0 / cfg.logits_scaling, softcap: None };
    b.decoder(blocks, b.rms(&b.weights, "norm").await?, scales).await
}

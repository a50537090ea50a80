//! Qwen 3: Llama with RMS norms of each query and key head before the rotary embedding.

use crate::error::LoadError;
use crate::layers::build::Build;
use crate::layers::{AttentionSpec, Decoder, HeadNorm};

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let spec = |spec| AttentionSpec { qk_norm: HeadNorm::PerHead, ..spec };
    let blocks = b.pre_norm_blocks(1.0, spec).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

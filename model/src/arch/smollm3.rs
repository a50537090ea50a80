//! SmolLM 3: Llama with layers that have no rotary embedding (`no_rope_layers`).

use crate::error::LoadError;
use crate::layers::Decoder;
use crate::layers::build::Build;

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let blocks = b.pre_norm_blocks(1.0, |spec| spec).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

//! Llama 2 and 3, TinyLlama and everything of their shape; biases where the checkpoint has them.

use crate::error::LoadError;
use crate::layers::Decoder;
use crate::layers::build::Build;

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let blocks = b.pre_norm_blocks(1.0, |spec| spec).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

//! Llama 2 and 3, TinyLlama and everything of their shape; biases where the checkpoint has them.

use crate::network::config::class::{Bias, Class};
use crate::error::LoadError;
use crate::network::layers::Decoder;
use crate::network::layers::build::Build;

pub(super) const CLASS: Class = Class {
    biases: [Bias::Configured(false); 3],
    bos_token_id: Some(1),
    eos_token_ids: &[2],
    ..Class::DECODER
};

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let blocks = b.pre_norm_blocks(1.0, |spec| spec).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

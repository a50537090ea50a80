//! Granite 3: Llama with four constant factors: of embeddings, scores, residuals and logits.

use crate::checkpoint::format::gguf::Family;
use crate::network::config::class::{Bias, Class};
use crate::error::LoadError;
use crate::network::layers::Decoder;
use crate::network::layers::build::Build;

pub(super) const CLASS: Class = Class {
    name: "Granite",
    biases: [Bias::Configured(false); 3],
    multipliers: true,
    bos_token_id: Some(1),
    eos_token_ids: &[2],
    ..Class::DECODER
};

pub(super) const GGUF: Family = Family { pairs_rows: true, scaled_scores: true, fields: |m, config| m.granite(config), ..Family::named("granite") };

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let blocks = b.pre_norm_blocks(b.cfg.residual_multiplier, |spec| spec).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

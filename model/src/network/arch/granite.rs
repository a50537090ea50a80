//! Granite 3: Llama with four constant factors: of embeddings, scores, residuals and logits.

use serde_json::{Map, Value};

use crate::checkpoint::format::gguf::{Family, Metadata};
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

pub(super) const GGUF: Family = Family { pairs_rows: true, scaled_scores: true, fields, ..Family::named("granite") };

fn fields(m: &Metadata<'_>, config: &mut Map<String, Value>) -> Result<(), LoadError> {
    let scale = m.attention_scale()?.unwrap_or_else(|| (m.head_dim as f64).sqrt().recip());
    config.insert("attention_multiplier".to_owned(), scale.into());
    config.insert("logits_scaling".to_owned(), m.needed("logit_scale")?.into());
    for (name, key) in [("embedding_multiplier", "embedding_scale"), ("residual_multiplier", "residual_scale")] {
        // 0 is llama.cpp's word for none.
        if let Some(v) = m.float(key)?.filter(|&v| v != 0.0) {
            config.insert(name.to_owned(), v.into());
        }
    }
    if m.flag("rope.scaling.finetuned")? == Some(false) {
        return Err(m.bad("rope.scaling.finetuned", "true (layers that rotate)"));
    }
    Ok(())
}

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let blocks = b.pre_norm_blocks(b.cfg.residual_multiplier, |spec| spec).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

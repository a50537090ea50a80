//! Gemma 2: norms before and after attention and MLP, all with a factor 1 + w; soft-capped scores and logits;
//! every other layer sees a sliding window; embeddings times `sqrt(C)`.

use serde_json::{Map, Value};

use crate::checkpoint::format::gguf::{Family, Metadata, SANDWICH_NORMS};
use crate::network::config::class::{Class, Slides};
use crate::error::LoadError;
use crate::network::layers::build::{Build, GEMMA_NORMS};
use crate::network::layers::{AttentionSpec, Decoder};

pub(super) const CLASS: Class = Class {
    name: "Gemma2",
    vocab_size: 256_000,
    hidden_size: 2304,
    intermediate_size: 9216,
    layers: 26,
    heads: 8,
    kv_heads: Some(4),
    head_dim: Some(256),
    max_position_embeddings: 8192,
    act_field: "hidden_activation",
    act: "gelu_pytorch_tanh",
    tie: true,
    root_of_hidden: true,
    slides: Slides::Alternate,
    sliding_window: Some(4096),
    softcaps: Some([Some(50.0), Some(30.0)]),
    query_pre_attn_scalar: Some(256.0),
    refused_flags: &["use_bidirectional_attention"],
    bos_token_id: Some(2),
    eos_token_ids: &[1],
    pad_token_id: Some(0),
    ..Class::DECODER
};

pub(super) const GGUF: Family = Family {
    plus_one: true,
    scaled_scores: true,
    block: SANDWICH_NORMS,
    fields,
    ..Family::named("gemma2")
};

fn fields(m: &Metadata<'_>, config: &mut Map<String, Value>) -> Result<(), LoadError> {
    config.insert("query_pre_attn_scalar".to_owned(), m.query_pre_attn_scalar(46)?.into());
    // There is a window whether the file says so or not.
    if m.window.is_none() {
        config.remove("sliding_window");
    }
    Ok(())
}

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let blocks = b.sandwich_blocks(GEMMA_NORMS, |spec| AttentionSpec { plus_one: true, ..spec }).await?;
    b.decoder(blocks, b.rms_plus_one(&b.weights, "norm").await?).await
}

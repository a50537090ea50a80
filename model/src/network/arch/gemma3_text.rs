//! Gemma 3 (text): Gemma 2 without soft-capping, with norms of each query and key head and two rotary
//! embeddings: a local one in sliding layers, a global one in full layers; embeddings times `sqrt(C)`.

use serde_json::{Map, Value};

use crate::checkpoint::format::gguf::{Family, Metadata, SANDWICH_NORMS};
use crate::network::config::class::{Class, LocalRope, Slides, tied};
use crate::error::LoadError;
use crate::network::layers::build::{Build, GEMMA_NORMS};
use crate::network::layers::{AttentionSpec, Decoder, HeadNorm};

pub(super) const CLASS: Class = Class {
    name: "Gemma3",
    vocab_size: 262_208,
    hidden_size: 2304,
    intermediate_size: 9216,
    layers: 26,
    heads: 8,
    kv_heads: Some(4),
    head_dim: Some(256),
    max_position_embeddings: 131_072,
    scaling_included: true,
    act_field: "hidden_activation",
    act: "gelu_pytorch_tanh",
    tie: true,
    root_of_hidden: true,
    theta: 1e6,
    local_rope: LocalRope::Base(10_000.0),
    slides: Slides::Pattern(6),
    sliding_window: Some(4096),
    softcaps: Some([None, None]),
    query_pre_attn_scalar: Some(256.0),
    refused_flags: &["use_bidirectional_attention"],
    bos_token_id: Some(2),
    eos_token_ids: &[1],
    pad_token_id: Some(0),
    wrappers: &[tied("gemma3")],
    ..Class::DECODER
};

pub(super) const GGUF: Family = Family {
    plus_one: true,
    scaled_scores: true,
    block: SANDWICH_NORMS,
    fields,
    ..Family::named("gemma3")
};

fn fields(m: &Metadata<'_>, config: &mut Map<String, Value>) -> Result<(), LoadError> {
    config.insert("query_pre_attn_scalar".to_owned(), m.query_pre_attn_scalar(62)?.into());
    // Without a window there is none in any layer, whatever the period.
    if m.window.is_none() {
        let full = vec![Value::from("full_attention"); m.layers.min(1 << 16) as usize];
        config.insert("layer_types".to_owned(), full.into());
    }
    Ok(())
}

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let spec = |spec| AttentionSpec { qk_norm: HeadNorm::PerHead, plus_one: true, ..spec };
    let blocks = b.sandwich_blocks(GEMMA_NORMS, spec).await?;
    b.decoder(blocks, b.rms_plus_one(&b.weights, "norm").await?).await
}

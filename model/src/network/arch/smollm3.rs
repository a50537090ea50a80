//! SmolLM 3: Llama with layers that have no rotary embedding (`no_rope_layers`).

use crate::checkpoint::format::gguf::Family;
use crate::network::config::class::{Bias, Class, Rotation, Slides};

pub(super) const CLASS: Class = Class {
    name: "SmolLM3",
    vocab_size: 128_256,
    hidden_size: 2048,
    layers: 36,
    heads: 16,
    kv_heads: Some(4),
    max_position_embeddings: 32_768,
    tie: true,
    biases: [Bias::Configured(false); 3],
    theta: 2e6,
    rotation: Rotation::Interval(4),
    slides: Slides::Unrotated,
    bos_token_id: Some(128_000),
    eos_token_ids: &[128_001],
    pad_token_id: Some(128_004),
    ..Class::DECODER
};

pub(super) const GGUF: Family = Family { pairs_rows: true, ..Family::named("smollm3") };

pub(super) use crate::network::layers::build::pre_norm_decoder as load;

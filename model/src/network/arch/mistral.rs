//! Mistral: Llama with a sliding window in every layer (from the configuration).

use crate::checkpoint::format::gguf::Family;
use crate::network::config::class::{Bias, Class, Slides, tied};

pub(super) const CLASS: Class = Class {
    name: "Mistral",
    intermediate_size: 14_336,
    kv_heads: Some(8),
    max_position_embeddings: 131_072,
    biases: [Bias::Fixed(false); 3],
    slides: Slides::All,
    sliding_window: Some(4096),
    bos_token_id: Some(1),
    eos_token_ids: &[2],
    wrappers: &[tied("mistral3")],
    ..Class::DECODER
};

pub(super) const GGUF: Family = Family { pairs_rows: true, windowed: true, ..Family::named("llama") };

pub(super) use crate::network::layers::build::pre_norm_decoder as load;

//! Qwen 2 and 2.5: Llama with biases of q, k and v; sliding windows in the layers that the configuration names.

use crate::checkpoint::format::gguf::Family;
use crate::network::config::class::{Bias, Class, Slides, tied, untied};

pub(super) const CLASS: Class = Class {
    name: "Qwen2",
    vocab_size: 151_936,
    intermediate_size: 22_016,
    kv_heads: Some(32),
    max_position_embeddings: 32_768,
    biases: [Bias::Fixed(true), Bias::Fixed(false), Bias::Fixed(false)],
    slides: Slides::From(28),
    sliding_window: Some(4096),
    wrappers: &[tied("internvl"), untied("llava_onevision")],
    ..Class::DECODER
};

pub(super) const GGUF: Family = Family::named("qwen2");

pub(super) use crate::network::layers::build::pre_norm_decoder as load;

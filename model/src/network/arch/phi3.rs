//! Phi 3 and 4-mini: Llama with fused `qkv_proj` and `gate_up_proj`, partial and long rotary embeddings.

use crate::checkpoint::format::gguf::Family;
use crate::network::config::class::{Bias, Class, Slides};

pub(super) const CLASS: Class = Class {
    name: "Phi3",
    vocab_size: 32_064,
    hidden_size: 3072,
    intermediate_size: 8192,
    max_position_embeddings: 4096,
    original_max_position_embeddings: Some(4096),
    eps: 1e-5,
    biases: [Bias::Fixed(false); 3],
    slides: Slides::All,
    bos_token_id: Some(1),
    eos_token_ids: &[32_000],
    pad_token_id: Some(32_000),
    ..Class::DECODER
};

pub(super) const GGUF: Family = Family { block: &[("ffn_up", "mlp.gate_up_proj")], ..Family::named("phi3") };

pub(super) use crate::network::layers::build::pre_norm_decoder as load;

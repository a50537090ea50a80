//! OLMo 2: norms after attention and MLP only; RMS norms over the whole query and key projections.

use crate::checkpoint::format::gguf::{Family, POST_NORMS};
use crate::network::config::class::Class;

pub(super) const CLASS: Class = Class {
    name: "Olmo2",
    vocab_size: 50_304,
    eps: 1e-5,
    eos_token_ids: &[50_279],
    pad_token_id: Some(1),
    ..Class::DECODER
};

pub(super) const GGUF: Family = Family { block: POST_NORMS, ..Family::named("olmo2") };

pub(super) use crate::network::layers::build::post_norm_decoder as load;

//! OLMo 3: OLMo 2 with sliding windows in three of four layers. Only the full layers scale their positions.

use crate::checkpoint::format::gguf::{Family, POST_NORMS};
use crate::network::config::class::{Class, LocalRope, Slides};

pub(super) const CLASS: Class = Class {
    name: "Olmo3",
    vocab_size: 50_304,
    eps: 1e-5,
    theta: 500_000.0,
    local_rope: LocalRope::Unscaled,
    slides: Slides::Pattern(4),
    sliding_window: Some(4096),
    eos_token_ids: &[50_279],
    pad_token_id: Some(1),
    ..Class::DECODER
};

pub(super) const GGUF: Family = Family { block: POST_NORMS, windowed: true, ..Family::named("olmo2") };

pub(super) use crate::network::layers::build::post_norm_decoder as load;

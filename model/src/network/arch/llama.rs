//! Llama 2 and 3, TinyLlama and everything of their shape; biases where the checkpoint has them.

use crate::checkpoint::format::gguf::Family;
use crate::network::config::class::{Bias, Class, untied};

pub(super) const CLASS: Class = Class {
    biases: [Bias::Configured(false); 3],
    bos_token_id: Some(1),
    eos_token_ids: &[2],
    wrappers: &[
        untied("idefics3"),
        untied("llava"),
        untied("llava_next"),
        untied("llava_next_video"),
        untied("smolvlm"),
        untied("video_llava"),
        untied("vipllava"),
    ],
    ..Class::DECODER
};

pub(super) const GGUF: Family = Family { pairs_rows: true, ..Family::named("llama") };

pub(super) use crate::network::layers::build::pre_norm_decoder as load;

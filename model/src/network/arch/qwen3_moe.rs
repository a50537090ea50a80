//! Qwen 3 MoE: Qwen 3 with mixtures of experts.

use girih_ops::moe::Router;

use crate::checkpoint::format::gguf::Family;
use crate::error::LoadError;
use crate::network::config::class::{Class, Experts, Slides, Sparse};
use crate::network::layers::build::Build;
use crate::network::layers::mixture::SOFTMAX;
use crate::network::layers::{AttentionSpec, Decoder, HeadNorm, MixtureNames, MixtureSpec};

pub(super) const CLASS: Class = Class {
    name: "Qwen3Moe",
    vocab_size: 151_936,
    hidden_size: 2048,
    intermediate_size: 6144,
    layers: 24,
    kv_heads: Some(4),
    max_position_embeddings: 32_768,
    slides: Slides::Used,
    sliding_window: Some(4096),
    experts: Some(Experts {
        count: (&["num_experts", "num_local_experts"], 128),
        per_token: (&["num_experts_per_tok"], 8),
        width: Some(768),
        layers: Sparse::Step,
        ..Experts::MIXTRAL
    }),
    ..Class::DECODER
};

const ROUTER: Router = SOFTMAX;

pub(super) const GGUF: Family = Family {
    mixture: true,
    fields: |_, config| {
        // As in llama.cpp, whatever the model's own configuration said.
        config.insert("norm_topk_prob".to_owned(), true.into());
        Ok(())
    },
    ..Family::named("qwen3moe")
};

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let spec = |spec| AttentionSpec { qk_norm: HeadNorm::PerHead, ..spec };
    let blocks = b.mixture_blocks(1.0, spec, &|all, layer| {
        MixtureSpec::new(b.cfg, layer, Router { normalise: all.normalise(0.0), ..ROUTER }, MixtureNames::QWEN)
    }).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

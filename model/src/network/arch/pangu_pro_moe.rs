//! Pangu Pro MoE (arXiv:2505.21411): mixtures of grouped experts, of which every token takes one of each group, with a learned
//! factor for each expert, beside them a network that all tokens go through; biases of attention's projections.
//!
//! Not among the classes of transformers: defaults are those of the published 72B model.

use girih_ops::moe::{Groups, Router};

use crate::checkpoint::format::gguf::Family;
use crate::error::LoadError;
use crate::network::config::class::{Bias, Class, Experts, Shared};
use crate::network::config::{self, LayerExperts};
use crate::network::layers::build::Build;
use crate::network::layers::mixture::SOFTMAX;
use crate::network::layers::{Decoder, MixtureNames, MixtureSpec};

pub(super) const CLASS: Class = Class {
    name: "PanguProMoE",
    vocab_size: 153_376,
    hidden_size: 5120,
    intermediate_size: 1344,
    layers: 48,
    heads: 40,
    kv_heads: Some(8),
    max_position_embeddings: 131_072,
    eps: 1e-5,
    theta: 1_000_000.0,
    biases: [Bias::Fixed(true), Bias::Fixed(true), Bias::Fixed(false)],
    experts: Some(Experts {
        count: (&["num_experts"], 64),
        per_token: (&["num_experts_per_tok"], 8),
        width: Some(1344),
        shared: Shared::Width("shared_expert_intermediate_size", 5376),
        even_groups: true,
        ..Experts::MIXTRAL
    }),
    ..Class::DECODER
};

const ROUTER: Router = SOFTMAX;

const NAMES: MixtureNames = MixtureNames { expert_scale: Some("router_scale"), ..MixtureNames::QWEN };

pub(super) const GGUF: Family = Family::NONE;

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let mixture = |_: &config::Experts, layer: &LayerExperts| {
        // One of each group, however many those are.
        let router = Router { groups: Groups::Each { groups: layer.per_token }, ..ROUTER };
        // The factors belong to the network beside the experts.
        let expert_scale = NAMES.expert_scale.filter(|_| layer.shared_intermediate_size.is_some());
        MixtureSpec::new(b.cfg, layer, router, MixtureNames { expert_scale, ..NAMES })
    };
    let blocks = b.mixture_blocks(1.0, |spec| spec, &mixture).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

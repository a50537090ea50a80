//! Granite 3 MoE: Granite with a mixture of experts in every layer; weights are the softmax of the chosen logits.

use girih_ops::moe::{Router, Score, Weight};

use crate::checkpoint::format::gguf::Family;
use crate::error::LoadError;
use crate::network::config::class::{Bias, Class, Experts};
use crate::network::layers::build::Build;
use crate::network::layers::mixture::SOFTMAX;
use crate::network::layers::{Decoder, MixtureNames, MixtureSpec};

pub(super) const CLASS: Class = Class {
    name: "GraniteMoe",
    biases: [Bias::Configured(false), Bias::Configured(false), Bias::Fixed(false)],
    multipliers: true,
    experts: Some(Experts::MIXTRAL),
    bos_token_id: Some(1),
    eos_token_ids: &[2],
    ..Class::DECODER
};

const ROUTER: Router = Router { score: Score::Logit, weight: Weight::Softmax, ..SOFTMAX };

const NAMES: MixtureNames = MixtureNames {
    scope: "block_sparse_moe",
    router: "router.layer",
    stacked: ["input_linear.weight", "output_linear.weight"],
    ..MixtureNames::QWEN
};

pub(super) const GGUF: Family = Family {
    pairs_rows: true,
    scaled_scores: true,
    block: &[
        ("ffn_gate_inp", "block_sparse_moe.router.layer"),
        ("ffn_gate_exps", "block_sparse_moe.experts.gate_proj"),
        ("ffn_up_exps", "block_sparse_moe.experts.up_proj"),
        ("ffn_gate_up_exps", "block_sparse_moe.input_linear"),
        ("ffn_down_exps", "block_sparse_moe.experts.down_proj"),
    ],
    mixture: true,
    fields: |m, config| m.granite(config),
    ..Family::named("granitemoe")
};

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let blocks = b.mixture_blocks(b.cfg.residual_multiplier, |spec| spec, &|_, layer| {
        MixtureSpec::new(b.cfg, layer, ROUTER, NAMES)
    }).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

//! OLMoE: mixtures of experts in every layer, RMS norms over the whole query and key projections.

use girih_ops::moe::Router;

use crate::checkpoint::format::gguf::Family;
use crate::error::LoadError;
use crate::network::config::class::{Bias, Class, Experts};
use crate::network::layers::build::Build;
use crate::network::layers::mixture::SOFTMAX;
use crate::network::layers::{AttentionSpec, Decoder, HeadNorm, MixtureNames, MixtureSpec};

pub(super) const CLASS: Class = Class {
    name: "Olmoe",
    vocab_size: 50_304,
    hidden_size: 2048,
    intermediate_size: 2048,
    layers: 16,
    heads: 16,
    max_position_embeddings: 4096,
    eps: 1e-5,
    biases: [Bias::Configured(false), Bias::Configured(false), Bias::Fixed(false)],
    clips_qkv: true,
    experts: Some(Experts {
        count: (&["num_experts", "num_local_experts"], 64),
        per_token: (&["num_experts_per_tok"], 8),
        ..Experts::MIXTRAL
    }),
    eos_token_ids: &[50_279],
    pad_token_id: Some(1),
    ..Class::DECODER
};

const ROUTER: Router = SOFTMAX;

pub(super) const GGUF: Family = Family {
    mixture: true,
    fields: |_, config| {
        // As in llama.cpp, whatever the model's own configuration said.
        config.insert("norm_topk_prob".to_owned(), false.into());
        Ok(())
    },
    ..Family::named("olmoe")
};

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let spec = |spec| AttentionSpec { qk_norm: HeadNorm::Full, ..spec };
    let blocks = b.mixture_blocks(1.0, spec, &|all, layer| {
        MixtureSpec::new(b.cfg, layer, Router { normalise: all.normalise(0.0), ..ROUTER }, MixtureNames::QWEN)
    }).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

//! Mixtral: Mistral with a mixture of experts in every layer.

use girih_ops::moe::{Normalise, Router};

use crate::checkpoint::format::gguf::{Family, MIXTRAL_EXPERTS};
use crate::error::LoadError;
use crate::network::config::class::{Bias, Class, Experts, Slides};
use crate::network::layers::build::Build;
use crate::network::layers::mixture::SOFTMAX;
use crate::network::layers::{Decoder, MixtureNames, MixtureSpec};

pub(super) const CLASS: Class = Class {
    name: "Mixtral",
    intermediate_size: 14_336,
    kv_heads: Some(8),
    max_position_embeddings: 131_072,
    eps: 1e-5,
    biases: [Bias::Fixed(false); 3],
    theta: 1e6,
    slides: Slides::All,
    experts: Some(Experts::MIXTRAL),
    bos_token_id: Some(1),
    eos_token_ids: &[2],
    ..Class::DECODER
};

const ROUTER: Router = Router { normalise: Normalise::Sum { eps: 0.0 }, ..SOFTMAX };

pub(super) const GGUF: Family =
    Family { pairs_rows: true, mixture: true, block: MIXTRAL_EXPERTS, ..Family::named("llama") };

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let blocks = b.mixture_blocks(1.0, |spec| spec, &|_, layer| {
        MixtureSpec::new(b.cfg, layer, ROUTER, MixtureNames::MIXTRAL)
    }).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

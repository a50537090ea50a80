//! DeepSeek-V3 (Kimi-K2, Moonlight; with softmax scores in GGUF files, DeepSeek-V2): multi-head latent attention; mixtures of
//! experts behind dense layers, chosen by sigmoids with a bias within groups, beside them a network that all tokens go through.

use girih_ops::moe::{Router, Score};
use serde_json::{Map, Value};

use crate::checkpoint::format::gguf::{Family, Metadata};
use crate::error::LoadError;
use crate::network::config::{self, Latent, LayerExperts};
use crate::network::config::class::{Bias, Class, Experts, Shared, Sparse};
use crate::network::layers::build::Build;
use crate::network::layers::mixture::SOFTMAX;
use crate::network::layers::{Decoder, MixtureNames, MixtureSpec};

pub(super) const CLASS: Class = Class {
    name: "DeepseekV3",
    vocab_size: 129_280,
    hidden_size: 7168,
    intermediate_size: 18_432,
    layers: 61,
    heads: 128,
    kv_heads: Some(128),
    max_position_embeddings: 4096,
    eps: 1e-6,
    biases: [Bias::Configured(false), Bias::Configured(false), Bias::Fixed(false)],
    latent: Some(Latent {
        q_rank: Some(1536),
        rank: 512,
        nope_dim: 128,
        rope_dim: 64,
        value_dim: 128,
        interleaved: true,
    }),
    experts: Some(Experts {
        count: (&["n_routed_experts", "num_local_experts"], 256),
        per_token: (&["num_experts_per_tok"], 8),
        width: Some(2048),
        layers: Sparse::From(3),
        shared: Shared::Times("n_shared_experts", 1),
        norm_topk_prob: true,
        groups: Some(([8, 4], 2.5)),
        score: Some(Score::Sigmoid),
        ..Experts::MIXTRAL
    }),
    bos_token_id: Some(0),
    eos_token_ids: &[1],
    ..Class::DECODER
};

const ROUTER: Router = Router { score: Score::Sigmoid, ..SOFTMAX };

const NAMES: MixtureNames = MixtureNames {
    choice_bias: Some("gate.e_score_correction_bias"),
    shared: "shared_experts",
    ..MixtureNames::QWEN
};

pub(super) const GGUF: Family = Family { latent: true, mixture: true, fields, ..Family::named("deepseek2") };

fn fields(m: &Metadata<'_>, config: &mut Map<String, Value>) -> Result<(), LoadError> {
    m.latent(config)?;
    m.deepseek_experts(config)?;
    // As in llama.cpp, where the file does not say.
    config.entry("scoring_func").or_insert("softmax".into());
    config.entry("routed_scaling_factor").or_insert(1.0.into());
    for (field, absent) in
        [("n_shared_experts", 0), ("first_k_dense_replace", 0), ("n_group", 1), ("topk_group", 1)]
    {
        config.entry(field).or_insert(absent.into());
    }
    Ok(())
}

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let mixture = |all: &config::Experts, layer: &LayerExperts| {
        let router = Router {
            score: all.score.unwrap_or(ROUTER.score),
            groups: all.limited(),
            normalise: all.normalise(1e-20),
            scale: all.scale,
            ..ROUTER
        };
        // DeepSeek-V2 chooses by the scores alone.
        let choice_bias = NAMES.choice_bias.filter(|_| router.score == Score::Sigmoid);
        MixtureSpec::new(b.cfg, layer, router, MixtureNames { choice_bias, ..NAMES })
    };
    let blocks = b.mixture_blocks(1.0, |spec| spec, &mixture).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

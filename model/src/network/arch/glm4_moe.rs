//! GLM 4.5: mixtures of experts behind dense layers, chosen by sigmoids with a bias, beside them a network that all
//! tokens go through; rotary embedding of half a head, optional norms of query and key heads.

use girih_ops::moe::{Router, Score};
use serde_json::{Map, Value};

use crate::checkpoint::format::gguf::{Family, Metadata};
use crate::error::LoadError;
use crate::network::config::class::{Bias, Class, Experts, Shared, Sparse};
use crate::network::layers::build::Build;
use crate::network::layers::mixture::SOFTMAX;
use crate::network::layers::{AttentionSpec, Decoder, HeadNorm, MixtureNames, MixtureSpec};

pub(super) const CLASS: Class = Class {
    name: "Glm4Moe",
    vocab_size: 151_552,
    intermediate_size: 10_944,
    layers: 46,
    heads: 96,
    kv_heads: Some(8),
    max_position_embeddings: 131_072,
    eps: 1e-5,
    biases: [Bias::Configured(false), Bias::Fixed(false), Bias::Fixed(false)],
    partial: 0.5,
    qk_norm_flag: true,
    experts: Some(Experts {
        count: (&["n_routed_experts", "num_local_experts"], 128),
        per_token: (&["num_experts_per_tok"], 8),
        width: Some(1408),
        layers: Sparse::From(1),
        shared: Shared::Times("n_shared_experts", 1),
        norm_topk_prob: true,
        groups: Some(([1, 1], 1.0)),
        score: Some(Score::Sigmoid),
        ..Experts::MIXTRAL
    }),
    ..Class::DECODER
};

const ROUTER: Router = Router { score: Score::Sigmoid, ..SOFTMAX };

const NAMES: MixtureNames = MixtureNames {
    choice_bias: Some("gate.e_score_correction_bias"),
    shared: "shared_experts",
    ..MixtureNames::QWEN
};

pub(super) const GGUF: Family = Family {
    block: &[("post_attention_norm", "post_attention_layernorm")],
    mixture: true,
    fields,
    ..Family::named("glm4moe")
};

fn fields(m: &Metadata<'_>, config: &mut Map<String, Value>) -> Result<(), LoadError> {
    config.insert("use_qk_norm".to_owned(), m.has("blk.0.attn_q_norm.weight").into());
    m.deepseek_experts(config)?;
    if m.uint("nextn_predict_layers")?.is_some_and(|n| n > 0) {
        return Err(m.bad("nextn_predict_layers", "0 (layers that predict further tokens are not supported yet)"));
    }
    Ok(())
}

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let spec = |spec| AttentionSpec { qk_norm: HeadNorm::PerHead, ..spec };
    let plain = |spec| spec;
    let spec: fn(AttentionSpec) -> AttentionSpec = if b.cfg.use_qk_norm { spec } else { plain };
    let blocks = b.mixture_blocks(1.0, spec, &|all, layer| {
        let router = Router {
            score: all.score.unwrap_or(ROUTER.score),
            groups: all.limited(),
            normalise: all.normalise(1e-20),
            scale: all.scale,
            ..ROUTER
        };
        MixtureSpec::new(b.cfg, layer, router, NAMES)
    }).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

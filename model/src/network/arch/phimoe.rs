//! Phi 3.5 MoE: two experts of each token, chosen one after the other among logits that are near the largest; layer norms
//! and biases.

use girih_ops::moe::{Choose, Router, Score};

use crate::checkpoint::format::gguf::{Family, MIXTRAL_EXPERTS};
use crate::error::LoadError;
use crate::network::config::class::{Bias, Class, Experts, Slides};
use crate::network::layers::build::Build;
use crate::network::layers::mixture::SOFTMAX;
use crate::network::layers::{Attention, Block, Decoder, MixtureNames, MixtureSpec, Norm, PreNorm, Scope};

pub(super) const CLASS: Class = Class {
    name: "Phimoe",
    vocab_size: 32_064,
    intermediate_size: 6400,
    kv_heads: Some(8),
    max_position_embeddings: 131_072,
    eps: 1e-5,
    biases: [Bias::Configured(false), Bias::Configured(false), Bias::Fixed(false)],
    theta: 1e6,
    slides: Slides::All,
    experts: Some(Experts {
        count: (&["num_local_experts", "num_experts"], 16),
        jitter: Some(0.01),
        ..Experts::MIXTRAL
    }),
    bos_token_id: Some(1),
    eos_token_ids: &[2],
    ..Class::DECODER
};

/// `router_jitter_noise` takes the place of eps.
const ROUTER: Router =
    Router { score: Score::Logit, choose: Choose::SparseMixer { eps: 0.01 }, ..SOFTMAX };

pub(super) const GGUF: Family = Family {
    block: MIXTRAL_EXPERTS,
    mixture: true,
    fields: |m, config| {
        config.insert("lm_head_bias".to_owned(), m.has("output.bias").into());
        Ok(())
    },
    ..Family::named("phimoe")
};

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let cfg = b.cfg;
    let norm = async |w: &Scope, name: &str| {
        Norm::layer(&w.scope(name), cfg.hidden_size, cfg.rms_norm_eps, true).await
    };
    let mut blocks = Vec::new();
    for i in 0..cfg.num_hidden_layers {
        let w = b.layer(i);
        if let Some(experts) = cfg.layer_experts(i as usize).filter(|experts| experts.per_token != 2) {
            let (field, got) = ("num_experts_per_tok".to_owned(), experts.per_token.to_string());
            return Err(LoadError::Config { field, got, want: "2".to_owned() });
        }
        blocks.push(Block::PreNorm(PreNorm {
            attn_norm: norm(&w, "input_layernorm").await?,
            attn: Attention::load(&w.scope("self_attn"), b.attention(i)).await?.into(),
            mlp_norm: norm(&w, "post_attention_layernorm").await?,
            mlp: b.feed_forward(i, &w, &|all, layer| {
                let router = Router { choose: Choose::SparseMixer { eps: all.jitter }, ..ROUTER };
                MixtureSpec::new(cfg, layer, router, MixtureNames::MIXTRAL)
            }).await?,
            residual_multiplier: 1.0,
        }));
    }
    let head_bias = cfg.raw.get("lm_head_bias").and_then(serde_json::Value::as_bool).unwrap_or(false);
    b.decoder_with(blocks, norm(&b.weights, "norm").await?, head_bias).await
}

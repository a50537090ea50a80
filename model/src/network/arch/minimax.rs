//! MiniMax-Text-01: lightning attention in most layers, full attention in the others; norms whose results, not what they are made of,
//! attention and experts are added to, with factors; Mixtral's experts.

use girih_ops::moe::{Normalise, Router};

use crate::checkpoint::format::gguf::Family;
use crate::error::LoadError;
use crate::network::config::class::{Bias, Class, Experts};
use crate::network::config::{self, LayerExperts, LayerType};
use crate::network::layers::build::Build;
use crate::network::layers::mixture::SOFTMAX;
use crate::network::layers::{
    Block, Decoder, LightningAttention, LightningSpec, MixtureNames, MixtureSpec, Norm, NormedResidual,
};

pub(super) const CLASS: Class = Class {
    name: "MiniMax",
    intermediate_size: 14_336,
    kv_heads: Some(8),
    max_position_embeddings: 131_072,
    eps: 1e-5,
    theta: 1_000_000.0,
    biases: [Bias::Fixed(false); 3],
    lightning: true,
    experts: Some(Experts::MIXTRAL),
    bos_token_id: Some(1),
    eos_token_ids: &[2],
    ..Class::DECODER
};

const ROUTER: Router = Router { normalise: Normalise::Sum { eps: 0.0 }, ..SOFTMAX };

pub(super) const GGUF: Family = Family::NONE;

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let cfg = b.cfg;
    let mixture =
        |_: &config::Experts, layer: &LayerExperts| MixtureSpec::new(cfg, layer, ROUTER, MixtureNames::MIXTRAL);
    let [full, linear, mlp] = cfg.normed_residual.unwrap_or([[1.0; 2]; 3]);
    let mut blocks = Vec::new();
    for i in 0..cfg.num_hidden_layers {
        let (w, is_linear) = (b.layer(i), cfg.layer_types.get(i as usize) == Some(&LayerType::Linear));
        let [attn_alpha, attn_beta] = if is_linear { linear } else { full };
        let norms = async |name: &str, alpha: f32| {
            let (w, size, eps) = (w.scope(name), cfg.hidden_size, cfg.rms_norm_eps);
            let scaled = Norm::rms_times(&w, size, eps, alpha).await?;
            Ok::<_, LoadError>([Norm::rms(&w, size, eps, false).await?, scaled])
        };
        let spec = LightningSpec {
            hidden_size: cfg.hidden_size,
            num_heads: cfg.num_attention_heads,
            head_dim: cfg.head_dim,
            act: cfg.hidden_act,
            layer: [i, cfg.num_hidden_layers],
        };
        blocks.push(Block::NormedResidual(NormedResidual {
            attn_norms: norms("input_layernorm", attn_alpha).await?,
            attn: if is_linear {
                LightningAttention::load(&w.scope("self_attn"), spec).await?.into()
            } else {
                b.self_attention(&w, b.attention(i)).await?
            },
            attn_beta,
            mlp_norms: norms("post_attention_layernorm", mlp[0]).await?,
            mlp: b.feed_forward(i, &w, &mixture).await?,
            mlp_beta: mlp[1],
        }));
    }
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

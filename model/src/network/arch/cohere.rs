//! Cohere (Command R): attention and MLP side by side after one layer norm without bias; interleaved rotary
//! embedding; logits times `logit_scale`; in the larger ones layer norms of each query and key head.

use serde_json::{Map, Value};

use crate::checkpoint::format::gguf::{Family, Metadata};
use crate::network::config::class::Class;
use crate::error::LoadError;
use crate::network::layers::build::Build;
use crate::network::layers::{Attention, AttentionSpec, Block, Decoder, HeadNorm, Norm, Parallel};

pub(super) const CLASS: Class = Class {
    name: "Cohere",
    vocab_size: 256_000,
    hidden_size: 8192,
    intermediate_size: 22_528,
    layers: 40,
    heads: 64,
    max_position_embeddings: 8192,
    eps: 1e-5,
    tie: true,
    theta: 500_000.0,
    logit_scale: Some(0.0625),
    qk_norm_flag: true,
    bos_token_id: Some(5),
    eos_token_ids: &[255_001],
    pad_token_id: Some(0),
    ..Class::DECODER
};

pub(super) const GGUF: Family = Family { fields, ..Family::named("command-r") };

fn fields(m: &Metadata<'_>, config: &mut Map<String, Value>) -> Result<(), LoadError> {
    config.insert("logit_scale".to_owned(), m.needed("logit_scale")?.into());
    config.insert("use_qk_norm".to_owned(), m.has("blk.0.attn_q_norm.weight").into());
    Ok(())
}

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let cfg = b.cfg;
    let qk_norm = if cfg.use_qk_norm { HeadNorm::Layer } else { HeadNorm::None };
    let mut blocks = Vec::new();
    for i in 0..cfg.num_hidden_layers {
        let w = b.layer(i);
        let spec = AttentionSpec { qk_norm, eps: cfg.layer_norm_eps, ..b.attention(i).interleaved() };
        blocks.push(Block::Parallel(Parallel {
            norm: Norm::layer(&w.scope("input_layernorm"), cfg.hidden_size, cfg.layer_norm_eps, false).await?,
            attn: Attention::load(&w.scope("self_attn"), spec).await?.into(),
            mlp: b.mlp(&w).await?.into(),
        }));
    }
    let norm = Norm::layer(&b.weights.scope("norm"), cfg.hidden_size, cfg.layer_norm_eps, false).await?;
    b.decoder(blocks, norm).await
}

//! Cohere (Command R): attention and MLP side by side after one layer norm without bias; interleaved rotary
//! embedding; logits times `logit_scale`.

use girih_ops::RopeStyle;

use crate::error::LoadError;
use crate::layers::build::Build;
use crate::layers::{Attention, AttentionSpec, Block, Decoder, Norm, Parallel};

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let cfg = b.cfg;
    if cfg.use_qk_norm {
        return Err(LoadError::Config {
            field: "use_qk_norm".into(),
            got: "true".into(),
            want: "false (layer norms of query and key heads are not supported yet)".into(),
        });
    }
    let mut blocks = Vec::new();
    for i in 0..cfg.num_hidden_layers {
        let w = b.layer(i);
        let spec = b.attention(i);
        let rope = spec.rope.clone().map(|(table, _)| (table, RopeStyle::Interleaved));
        blocks.push(Block::Parallel(Parallel {
            norm: Norm::layer(&w.scope("input_layernorm"), cfg.hidden_size, cfg.layer_norm_eps).await?,
            attn: Attention::load(&w.scope("self_attn"), AttentionSpec { rope, ..spec }).await?,
            mlp: b.mlp(&w).await?,
        }));
    }
    let norm = Norm::layer(&b.weights.scope("norm"), cfg.hidden_size, cfg.layer_norm_eps).await?;
    b.decoder(blocks, norm).await
}

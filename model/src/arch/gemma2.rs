//! Gemma 2: norms before and after attention and MLP, all with a factor 1 + w; soft-capped scores and logits;
//! every other layer sees a sliding window; embeddings times `sqrt(C)`.

use crate::error::LoadError;
use crate::layers::build::Build;
use crate::layers::{Attention, Block, Decoder, Sandwich};

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let mut blocks = Vec::new();
    for i in 0..b.cfg.num_hidden_layers {
        let w = b.layer(i);
        let spec = b.attention(i);
        blocks.push(Block::Sandwich(Sandwich {
            attn_norm: b.rms_plus_one(&w, "input_layernorm").await?,
            attn: Attention::load(&w.scope("self_attn"), spec).await?,
            attn_post_norm: b.rms_plus_one(&w, "post_attention_layernorm").await?,
            mlp_norm: b.rms_plus_one(&w, "pre_feedforward_layernorm").await?,
            mlp: b.mlp(&w).await?,
            mlp_post_norm: b.rms_plus_one(&w, "post_feedforward_layernorm").await?,
        }));
    }
    b.decoder(blocks, b.rms_plus_one(&b.weights, "norm").await?).await
}

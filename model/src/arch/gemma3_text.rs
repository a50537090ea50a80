//! Gemma 3 (text): Gemma 2 without soft-capping, with norms of each query and key head and two rotary
//! embeddings: a local one in sliding layers, a global one in full layers; embeddings times `sqrt(C)`.

use crate::error::LoadError;
use crate::layers::build::Build;
use crate::layers::{Attention, AttentionSpec, Block, Decoder, HeadNorm, Sandwich};

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let mut blocks = Vec::new();
    for i in 0..b.cfg.num_hidden_layers {
        let w = b.layer(i);
        let spec = AttentionSpec { qk_norm: HeadNorm::PerHead, plus_one: true, ..b.attention(i) };
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

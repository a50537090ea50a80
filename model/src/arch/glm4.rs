//! GLM 4: norms before and after attention and MLP, interleaved rotary embedding of the first channels of a head,
//! fused `gate_up_proj`, biases of q, k and v.

use girih_ops::RopeStyle;

use crate::error::LoadError;
use crate::layers::build::Build;
use crate::layers::{Attention, AttentionSpec, Block, Decoder, Sandwich};

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let mut blocks = Vec::new();
    for i in 0..b.cfg.num_hidden_layers {
        let w = b.layer(i);
        let spec = b.attention(i);
        let rope = spec.rope.clone().map(|(table, _)| (table, RopeStyle::Interleaved));
        blocks.push(Block::Sandwich(Sandwich {
            attn_norm: b.rms(&w, "input_layernorm").await?,
            attn: Attention::load(&w.scope("self_attn"), AttentionSpec { rope, ..spec }).await?,
            attn_post_norm: b.rms(&w, "post_self_attn_layernorm").await?,
            mlp_norm: b.rms(&w, "post_attention_layernorm").await?,
            mlp: b.mlp(&w).await?,
            mlp_post_norm: b.rms(&w, "post_mlp_layernorm").await?,
        }));
    }
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

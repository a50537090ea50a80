//! OLMo 2: norms after attention and MLP only; RMS norms over the whole query and key projections.

use crate::config::class::Class;
use crate::error::LoadError;
use crate::layers::build::Build;
use crate::layers::{Attention, AttentionSpec, Block, Decoder, HeadNorm, PostNorm};

pub(super) const CLASS: Class = Class {
    name: "Olmo2",
    vocab_size: 50_304,
    eps: 1e-5,
    eos_token_ids: &[50_279],
    pad_token_id: Some(1),
    ..Class::DECODER
};

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let mut blocks = Vec::new();
    for i in 0..b.cfg.num_hidden_layers {
        let w = b.layer(i);
        let spec = AttentionSpec { qk_norm: HeadNorm::Full, ..b.attention(i) };
        blocks.push(Block::PostNorm(PostNorm {
            attn: Attention::load(&w.scope("self_attn"), spec).await?,
            attn_post_norm: b.rms(&w, "post_attention_layernorm").await?,
            mlp: b.mlp(&w).await?,
            mlp_post_norm: b.rms(&w, "post_feedforward_layernorm").await?,
        }));
    }
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

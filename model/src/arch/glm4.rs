//! GLM 4: norms before and after attention and MLP, interleaved rotary embedding of the first channels of a head,
//! fused `gate_up_proj`, biases of q, k and v.

use crate::error::LoadError;
use crate::layers::build::Build;
use crate::layers::{AttentionSpec, Decoder};

const NORMS: [&str; 4] =
    ["input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"];

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let blocks = b.sandwich_blocks(NORMS, AttentionSpec::interleaved).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

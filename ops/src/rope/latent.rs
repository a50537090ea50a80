//! Queries and keys of multi-head latent attention, and the append to the cache that goes with them.

use girih_kernels::rope::latent_append as latent_kernel;

use super::{RopeStyle, RopeTable};
use crate::{Batch, DType, Frame, KvView, OpError, Tensor};

/// What [`latent_append`] makes queries and keys of.
#[derive(Clone, Copy, Debug)]
pub struct LatentAppend<'a> {
    /// Query heads Hq.
    pub num_q_heads: u32,
    /// Weight of the norm of latents `[L]`.
    pub norm: &'a Tensor,
    /// Added to the mean square of a latent.
    pub eps: f32,
    /// Rotation of all R channels.
    pub rope: (&'a RopeTable, RopeStyle),
}

/// The way from the projections of multi-head latent attention (DeepSeek-V2, arXiv:2405.04434) to the cache, in one dispatch,
/// for its absorbed form: `q_h · k = absorbed_h · latent + rotated(q_rope_h) · rotated(key)`, where `absorbed_h = W_UK,hᵀ q_h`.
///
/// The latent is normalised (`latent / sqrt(mean(latent²) + eps) · w`) and appended to the cache with the rotated key behind it, at
/// `(slot, position)`; returns the queries `[absorbed | rotated(q_rope)]` of each head. Positions and tables: as
/// [`rope_append`](crate::rope_append).
///
/// # Shapes
/// latents `[T, L + R]`, rows `[latent | key]`; absorbed `[T Hq, L]`; q_rope `[T, Hq R]` → `[T, Hq (L + R)]`
///
/// # Errors
/// Shapes that do not fit, a cache of other than latents ([`KvView::alloc_latent`]), odd channels in an f16 cache, a table for
/// other than R channels, sequences that may grow beyond the table or the cache.
pub fn latent_append(
    frame: &mut Frame,
    [latents, absorbed, q_rope]: [&Tensor; 3],
    kv: &KvView,
    batch: &Batch,
    opts: &LatentAppend<'_>,
) -> Result<Tensor, OpError> {
    const OP: &str = "latent_append";
    let value = |what, got: u32, want: String| OpError::Value { op: OP, what, got: f64::from(got), want };
    let (num_tokens, num_seqs, heads) = (batch.num_tokens(), batch.num_seqs(), opts.num_q_heads);
    let (table, style) = opts.rope;
    let rope_dim = table.rotary_dim();
    if kv.num_kv_heads != 1 {
        return Err(value("key heads of the cache", kv.num_kv_heads, "1: the latent".into()));
    }
    let Some(latent_dim) = kv.head_dim.checked_sub(rope_dim).filter(|&l| l == kv.value_dim && l > 0) else {
        let want =
            format!("{}, the channels of a value and those that the table rotates", kv.value_dim + rope_dim);
        return Err(value("channels of a key", kv.head_dim, want));
    };
    if kv.f16 && !(latent_dim.is_multiple_of(2) && kv.k_strides.token.is_multiple_of(2)) {
        return Err(value(
            "channels of a latent",
            latent_dim,
            "even in an f16 cache (two channels share a word)".into(),
        ));
    }
    for (name, tensor) in
        [("latents", latents), ("absorbed", absorbed), ("q_rope", q_rope), ("norm", opts.norm)]
    {
        tensor.expect_dtype(OP, name, DType::F32)?;
    }
    latents.expect(OP, "latents", &[num_tokens, kv.head_dim])?;
    absorbed.expect(OP, "absorbed", &[num_tokens.saturating_mul(heads), latent_dim])?;
    q_rope.expect(OP, "q_rope", &[num_tokens, heads.saturating_mul(rope_dim)])?;
    opts.norm.expect(OP, "weight of the norm", &[latent_dim])?;
    kv.check_capacity(OP, batch)?;
    table.check_positions(OP, batch)?;
    let q = frame.alloc(&[num_tokens, heads.saturating_mul(kv.head_dim)], DType::F32)?;
    let params = latent_kernel::Params {
        num_tokens,
        num_seqs,
        num_q_heads: heads,
        latent_dim,
        head_dim: rope_dim,
        num_pairs: table.num_pairs,
        max_positions: table.max_positions,
        switch_len: table.switch(),
        eps: opts.eps,
        one_token_each: (num_tokens == num_seqs).into(),
        grid_y: 0,
        k_slot: kv.k_strides.slot,
        k_token: kv.k_strides.token,
    };
    let mode = latent_kernel::Mode { rope: (style.kernel(), table.angles), f16: kv.f16 };
    let args = latent_kernel::Args {
        latents: latents.buffer(),
        seqs: batch.seqs.buffer(),
        table: table.data.buffer(),
        absorbed: absorbed.buffer(),
        q_rope: q_rope.buffer(),
        norm: opts.norm.buffer(),
        k: &kv.k,
        q: q.buffer(),
    };
    latent_kernel::record(frame.recorder(), args, params, mode)?;
    Ok(q)
}

//! Attention of a ragged batch over a cache.

use girih_kernels::attention::{self as kernels, decode, merge, prefill};

use crate::{Batch, DType, Frame, KvView, OpError, Tensor};

/// Options of [`attention`].
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Query heads Hq, a multiple of the cache's key heads: head h reads key head `h / (Hq / Hkv)`.
    pub num_q_heads: u32,
    /// Factor of the scores.
    pub scale: f32,
    /// Whether a row sees no key after its own position.
    pub causal: bool,
    /// Keys that a row sees, its own included.
    pub window: Option<u32>,
    /// Bound of the scores: `s → softcap · tanh(s / softcap)`, after scaling and before masking.
    pub softcap: Option<f32>,
    /// A logit for each head `[Hq]` that takes part in the softmax without a value.
    pub sinks: Option<&'a Tensor>,
}

/// Attention of packed rows over the cache (which already holds the batch's own keys and values), for each head
/// `o_i = Σ_j softmax_j(scale · q_i·k_j) v_j` over the keys j that row i sees. Row i of a sequence has position
/// `kv_len - q_len + i`. A row that sees nothing gives 0.
///
/// # Shapes
/// q `[T, Hq·D]` → `[T, Hq·Dv]`
///
/// # Errors
/// Shapes that do not fit, head dims over 576 (keys) or 512 (values), a window of 0, a cap that is not positive.
pub fn attention(
    frame: &mut Frame,
    q: &Tensor,
    kv: &KvView,
    batch: &Batch,
    opts: &Attention<'_>,
) -> Result<Tensor, OpError> {
    Ok(attention_with_lse(frame, q, kv, batch, opts)?.0)
}

/// [`attention`] and the natural log of the softmax denominator (sinks included), `-1e30` for rows that see
/// nothing.
///
/// # Shapes
/// q `[T, Hq·D]` → `[T, Hq·Dv]`, `[T, Hq]`
///
/// # Errors
/// As [`attention`].
pub fn attention_with_lse(
    frame: &mut Frame,
    q: &Tensor,
    kv: &KvView,
    batch: &Batch,
    opts: &Attention<'_>,
) -> Result<(Tensor, Tensor), OpError> {
    const OP: &str = "attention";
    let (num_tokens, heads) = (batch.num_tokens(), opts.num_q_heads);
    let [q_width, o_width] = check_heads(kv, opts)?;
    q.expect_dtype(OP, "q", DType::F32)?;
    q.expect(OP, "q", &[num_tokens, q_width])?;
    if let Some(sinks) = opts.sinks {
        sinks.expect_dtype(OP, "sinks", DType::F32)?;
        sinks.expect(OP, "sinks", &[heads])?;
    }
    let strides = |s: crate::Strides| [s.slot, s.head, s.token];
    let shape = kernels::Shape {
        num_q_heads: heads,
        num_kv_heads: kv.num_kv_heads,
        head_dim: kv.head_dim,
        value_dim: kv.value_dim,
        k_strides: strides(kv.k_strides),
        v_strides: strides(kv.v_strides),
        f16: kv.f16,
        num_tokens,
        num_seqs: batch.num_seqs(),
        max_q_len: batch.max_q_len,
        max_kv_len: batch.max_kv_len,
        scale: opts.scale,
        softcap: opts.softcap,
        window: opts.window,
        causal: opts.causal,
    };
    let o = frame.alloc(&[num_tokens, o_width], DType::F32)?;
    let lse = frame.alloc(&[num_tokens, heads], DType::F32)?;
    let sinks = opts.sinks.map(Tensor::buffer);
    let mut args = kernels::Args {
        q: q.buffer(),
        k: &kv.k,
        v: &kv.v,
        seqs: batch.seqs.buffer(),
        sinks,
        o: o.buffer(),
        lse: lse.buffer(),
    };
    if batch.max_q_len > 1 {
        prefill::record(frame.recorder(), args, &shape)?;
        return Ok((o, lse));
    }
    let splits = decode::splits(frame.gpu().caps(), &shape);
    if splits == 1 {
        decode::record(frame.recorder(), args, &shape, 1)?;
        return Ok((o, lse));
    }
    let o_parts = frame.alloc(&[splits, num_tokens, o_width], DType::F32)?;
    let lse_parts = frame.alloc(&[splits, num_tokens, heads], DType::F32)?;
    args.o = o_parts.buffer();
    args.lse = lse_parts.buffer();
    decode::record(frame.recorder(), args, &shape, splits)?;
    let args = merge::Args {
        o_parts: o_parts.buffer(),
        lse_parts: lse_parts.buffer(),
        sinks,
        o: o.buffer(),
        lse: lse.buffer(),
    };
    merge::record(frame.recorder(), args, [num_tokens, heads, kv.value_dim], splits)?;
    Ok((o, lse))
}

/// Channels of a row of queries and of results.
fn check_heads(kv: &KvView, opts: &Attention<'_>) -> Result<[u32; 2], OpError> {
    let bad = |what, got: f64, want: String| Err(OpError::Value { op: "attention", what, got, want });
    let (heads, kv_heads) = (opts.num_q_heads, kv.num_kv_heads);
    if kv_heads == 0 || heads == 0 || !heads.is_multiple_of(kv_heads) {
        return bad("num_q_heads", heads.into(), format!("a positive multiple of {kv_heads} key heads"));
    }
    let dims = [
        ("head_dim", kv.head_dim, kernels::MAX_KEY_DIM),
        ("value_dim", kv.value_dim, kernels::MAX_VALUE_DIM),
    ];
    for (what, dim, most) in dims {
        if dim == 0 || dim > most {
            return bad(what, dim.into(), format!("1 to {most}"));
        }
    }
    if opts.window == Some(0) {
        return bad("window", 0.0, "at least 1".into());
    }
    if let Some(cap) = opts.softcap
        && (cap.is_nan() || cap <= 0.0)
    {
        return bad("softcap", cap.into(), "positive".into());
    }
    let width = |dim: u32| heads.checked_mul(dim);
    let (Some(q), Some(o)) = (width(kv.head_dim), width(kv.value_dim)) else {
        let largest = kv.head_dim.max(kv.value_dim);
        return bad("num_q_heads", heads.into(), format!("below 2^32 / {largest}, the channels of a head"));
    };
    Ok([q, o])
}

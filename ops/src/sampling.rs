//! From logits to token ids, on the GPU.

use girih_kernels::sample::{argmax as kernel, argmax_merge, greedy_advance, top_k as top_k_kernel};

use crate::{Batch, DType, Frame, OpError, Tensor};

fn logits_dims(op: &'static str, logits: &Tensor) -> Result<[u32; 2], OpError> {
    logits.expect_dtype(op, "logits", DType::F32)?;
    let [num_rows, vocab_size] = logits.dims(op, "logits")?;
    if vocab_size == 0 {
        let want = "[S, V] with V > 0".into();
        return Err(OpError::Shape { op, tensor: "logits", got: logits.shape().to_vec(), want });
    }
    Ok([num_rows, vocab_size])
}

/// The first stage of [`argmax`]: key and index of each part of each row, and the number of parts.
fn best_of_parts(frame: &mut Frame, logits: &Tensor, dims: [u32; 2]) -> Result<(Tensor, u32), OpError> {
    let [num_rows, vocab_size] = dims;
    let parts = kernel::parts(frame.gpu().caps(), vocab_size);
    let best = frame.alloc(&[num_rows, parts.num_parts, 2], DType::U32)?;
    let args = kernel::Args { logits: logits.buffer(), best: best.buffer() };
    kernel::record(frame.recorder(), args, num_rows, vocab_size, parts, false)?;
    Ok((best, parts.num_parts))
}

/// Index of the largest logit of each row; the lowest one among equals. NaN is never chosen; a row of nothing else
/// gives 0xffffffff. One dispatch for small vocabularies, else two.
///
/// # Shapes
/// logits `[S, V]` → u32 `[S]`
///
/// # Errors
/// Shapes or types that do not fit.
pub fn argmax(frame: &mut Frame, logits: &Tensor) -> Result<Tensor, OpError> {
    let dims = logits_dims("argmax", logits)?;
    let [num_rows, vocab_size] = dims;
    let parts = kernel::parts(frame.gpu().caps(), vocab_size);
    if parts.num_parts == 1 {
        let best = frame.alloc(&[num_rows], DType::U32)?;
        let args = kernel::Args { logits: logits.buffer(), best: best.buffer() };
        kernel::record(frame.recorder(), args, num_rows, vocab_size, parts, true)?;
        return Ok(best);
    }
    let (parts, num_parts) = best_of_parts(frame, logits, dims)?;
    let best = frame.alloc(&[num_rows], DType::U32)?;
    let args = argmax_merge::Args { parts: parts.buffer(), best: best.buffer() };
    argmax_merge::record(frame.recorder(), args, num_rows, num_parts)?;
    Ok(best)
}

/// The k largest logits of each row, descending, ties to the lowest index, and their indices. NaN is never chosen;
/// where a row has fewer than k other logits, the rest has index 0xffffffff and the most negative value. Meant for
/// k of up to a few hundred: the work grows with k.
///
/// # Shapes
/// logits `[S, V]` → f32 `[S, k]`, u32 `[S, k]`
///
/// # Errors
/// Shapes or types that do not fit, k that is 0 or above V.
pub fn top_k(frame: &mut Frame, logits: &Tensor, k: u32) -> Result<(Tensor, Tensor), OpError> {
    let [num_rows, vocab_size] = logits_dims("top_k", logits)?;
    if k == 0 || k > vocab_size {
        let want = format!("1 to {vocab_size}, the number of logits");
        return Err(OpError::Value { op: "top_k", what: "k", got: f64::from(k), want });
    }
    // Parts must be clearly longer than their lists, or the second stage has as much to do as the first.
    let part_len = top_k_kernel::part_len(frame.gpu().caps()).max(k.saturating_mul(8));
    let num_parts = vocab_size.div_ceil(part_len);
    let values = frame.alloc(&[num_rows, num_parts, k], DType::F32)?;
    let ids = frame.alloc(&[num_rows, num_parts, k], DType::U32)?;
    let args = top_k_kernel::Args {
        logits: logits.buffer(),
        values: values.buffer(),
        ids: ids.buffer(),
        part_ids: None,
    };
    top_k_kernel::record(frame.recorder(), args, num_rows, vocab_size, part_len, k)?;
    if num_parts == 1 {
        return Ok((values.reshape(&[num_rows, k])?, ids.reshape(&[num_rows, k])?));
    }
    let best = frame.alloc(&[num_rows, k], DType::F32)?;
    let best_ids = frame.alloc(&[num_rows, k], DType::U32)?;
    let args = top_k_kernel::Args {
        logits: values.buffer(),
        values: best.buffer(),
        ids: best_ids.buffer(),
        part_ids: Some(ids.buffer()),
    };
    let Some(row_len) = num_parts.checked_mul(k) else {
        let want = format!("below 2^32 / {num_parts}, the parts of a row");
        return Err(OpError::Value { op: "top_k", what: "k", got: k.into(), want });
    };
    top_k_kernel::record(frame.recorder(), args, num_rows, row_len, row_len, k)?;
    Ok((best, best_ids))
}

/// Chooses the likeliest token of each sequence and makes the batch ready for the next decode step, on the GPU:
/// `token = argmax(logits[s])`, `out[s, 1 + out[s, 0]] = token`, `out[s, 0] += 1`, `batch.token_ids[s] = token`,
/// `batch.positions[s] += 1`, `batch.seqs[s].kv_len += 1`. Two dispatches. When a row of `out` is full, further
/// tokens are not written to it and its count stays at the capacity. Logits of nothing but NaN give the token
/// 0xffffffff.
///
/// # Shapes
/// logits `[S, V]`, out u32 `[S, 1 + capacity]`
///
/// # Errors
/// Shapes or types that do not fit, a batch with other than one token per sequence.
pub fn greedy_step(frame: &mut Frame, logits: &Tensor, batch: &Batch, out: &Tensor) -> Result<(), OpError> {
    const OP: &str = "greedy_step";
    let dims = logits_dims(OP, logits)?;
    let num_seqs = batch.num_seqs();
    logits.expect(OP, "logits", &[num_seqs, dims[1]])?;
    batch.token_ids.expect(OP, "batch.token_ids (one token per sequence)", &[num_seqs])?;
    batch.positions.expect(OP, "batch.positions", &[num_seqs])?;
    out.expect_dtype(OP, "out", DType::U32)?;
    let [out_rows, row_len] = out.dims(OP, "out")?;
    if out_rows != num_seqs || row_len == 0 {
        let want = format!("[{num_seqs}, 1 + capacity]");
        return Err(OpError::Shape { op: OP, tensor: "out", got: out.shape().to_vec(), want });
    }
    let (parts, num_parts) = best_of_parts(frame, logits, dims)?;
    let args = greedy_advance::Args {
        parts: parts.buffer(),
        token_ids: batch.token_ids.buffer(),
        positions: batch.positions.buffer(),
        seqs: batch.seqs.buffer(),
        out: out.buffer(),
    };
    greedy_advance::record(frame.recorder(), args, num_seqs, num_parts, row_len - 1)?;
    Ok(())
}

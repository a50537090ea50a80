//! Linear attention with a state that decays.

use girih_kernels::attention::linear_attention as kernel;

use crate::{Batch, DType, Frame, OpError, Tensor};

/// Lightning attention (arXiv:2401.04658): for each head `S_t = exp(-slope) S_{t-1} + k_t ⊗ v_t`, `o_t = q_t S_t`, without a scale or
/// a softmax. A sequence of the batch that begins (`kv_len = q_len`) begins with S = 0; one that goes on takes the state that
/// the last call left in its slot, which must be that of its token before. f32 throughout; each token costs `4 H D²` operations
/// whatever the length.
///
/// # Shapes
/// qkv `[T, H 3 D]`, rows `[q | k | v]` of each head; slopes `[H]`; states `[slots, H, D, D]`, updated → `[T, H D]`
///
/// # Errors
/// Shapes or types that do not fit, head dims over 256.
pub fn linear_attention(
    frame: &mut Frame,
    qkv: &Tensor,
    slopes: &Tensor,
    states: &Tensor,
    batch: &Batch,
) -> Result<Tensor, OpError> {
    const OP: &str = "linear_attention";
    for (name, tensor) in [("qkv", qkv), ("slopes", slopes), ("states", states)] {
        tensor.expect_dtype(OP, name, DType::F32)?;
    }
    let [slots, heads, dim, _] = states.dims(OP, "states")?;
    states.expect(OP, "states", &[slots, heads, dim, dim])?;
    slopes.expect(OP, "slopes", &[heads])?;
    let tokens = batch.num_tokens();
    qkv.expect(OP, "qkv", &[tokens, heads.saturating_mul(dim).saturating_mul(3)])?;
    if dim == 0 || dim > kernel::MAX_DIM {
        let want = format!("1 to {}", kernel::MAX_DIM);
        return Err(OpError::Value { op: OP, what: "channels of a head", got: dim.into(), want });
    }
    let o = frame.alloc(&[tokens, heads.saturating_mul(dim)], DType::F32)?;
    let args = kernel::Args {
        qkv: qkv.buffer(),
        slopes: slopes.buffer(),
        seqs: batch.seqs.buffer(),
        states: states.buffer(),
        o: o.buffer(),
    };
    let shape =
        kernel::Shape { num_tokens: tokens, num_seqs: batch.num_seqs(), num_heads: heads, head_dim: dim };
    kernel::record(frame.recorder(), args, shape)?;
    Ok(o)
}

//! Normalisations.

use girih_kernels::norm::rms_norm as kernel;

use crate::{Frame, OpError, Tensor};

/// Root-mean-square normalisation over the last axis: `y = x / sqrt(mean(x²) + eps) · weight`.
///
/// # Shapes
/// x `[T, C]`, weight `[C]` → `[T, C]`
///
/// # Errors
/// Shapes that do not fit.
pub fn rms_norm(frame: &mut Frame, x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor, OpError> {
    let [num_rows, num_channels] = x.dims("rms_norm", "x")?;
    weight.expect("rms_norm", "weight", &[num_channels])?;
    let y = frame.alloc(x.shape(), x.dtype())?;
    let args = kernel::Args { x: x.buffer(), w: weight.buffer(), y: y.buffer() };
    kernel::record(frame.recorder(), args, num_rows, num_channels, eps)?;
    Ok(y)
}

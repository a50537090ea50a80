//! Normalisations over the last axis.

use girih_kernels::norm::{add_rms_norm as add_kernel, layer_norm as layer_kernel};
use girih_kernels::norm::{rms_norm as kernel, rms_norm_add as post_kernel};

use crate::{DType, Frame, OpError, Tensor};

/// Rows and channels of a tensor whose last axis is normalised.
pub(crate) fn rows_and_channels(op: &'static str, x: &Tensor) -> Result<(u32, u32), OpError> {
    x.expect_dtype(op, "x", DType::F32)?;
    match x.shape() {
        [.., channels] if *channels > 0 => Ok(((x.len() / *channels as usize) as u32, *channels)),
        shape => Err(OpError::Shape {
            op,
            tensor: "x",
            got: shape.to_vec(),
            want: "of rank 1 or more with a last axis that is not empty".into(),
        }),
    }
}

/// Root-mean-square normalisation over the last axis: `y = x / sqrt(mean(x²) + eps) · weight`.
///
/// # Shapes
/// x `[.., C]`, weight `[C]` → `[.., C]`
///
/// # Errors
/// Shapes that do not fit.
pub fn rms_norm(frame: &mut Frame, x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor, OpError> {
    let (num_rows, num_channels) = rows_and_channels("rms_norm", x)?;
    weight.expect("rms_norm", "weight", &[num_channels])?;
    let y = frame.alloc(x.shape(), x.dtype())?;
    let args = kernel::Args { x: x.buffer(), w: Some(weight.buffer()), y: y.buffer() };
    kernel::record(frame.recorder(), args, num_rows, num_channels, eps)?;
    Ok(y)
}

/// [`rms_norm`] without a weight: `y = x / sqrt(mean(x²) + eps)`.
///
/// # Shapes
/// x `[.., C]` → `[.., C]`
///
/// # Errors
/// Shapes that do not fit.
pub fn rms_norm_unit(frame: &mut Frame, x: &Tensor, eps: f32) -> Result<Tensor, OpError> {
    let (num_rows, num_channels) = rows_and_channels("rms_norm_unit", x)?;
    let y = frame.alloc(x.shape(), x.dtype())?;
    let args = kernel::Args { x: x.buffer(), w: None, y: y.buffer() };
    kernel::record(frame.recorder(), args, num_rows, num_channels, eps)?;
    Ok(y)
}

/// The norm behind a block (Gemma 2 and 3, OLMo 2, GLM 4): `y = residual + rms_norm(x, weight)`.
///
/// # Shapes
/// x `[.., C]`, weight `[C]`, residual `[.., C]` → `[.., C]`
///
/// # Errors
/// Shapes that do not fit.
pub fn rms_norm_add(
    frame: &mut Frame,
    x: &Tensor,
    weight: &Tensor,
    eps: f32,
    residual: &Tensor,
) -> Result<Tensor, OpError> {
    let (num_rows, num_channels) = rows_and_channels("rms_norm_add", x)?;
    weight.expect("rms_norm_add", "weight", &[num_channels])?;
    residual.expect("rms_norm_add", "residual", x.shape())?;
    let y = frame.alloc(x.shape(), x.dtype())?;
    let args =
        post_kernel::Args { x: x.buffer(), w: weight.buffer(), residual: residual.buffer(), y: y.buffer() };
    post_kernel::record(frame.recorder(), args, num_rows, num_channels, eps)?;
    Ok(y)
}

/// The end of one block and the begin of the next: `r = x + residual`, `y = rms_norm(r, weight)`. Returns `(r, y)`.
///
/// # Shapes
/// x `[.., C]`, residual `[.., C]`, weight `[C]` → `[.., C]`, `[.., C]`
///
/// # Errors
/// Shapes that do not fit.
pub fn add_rms_norm(
    frame: &mut Frame,
    x: &Tensor,
    residual: &Tensor,
    weight: &Tensor,
    eps: f32,
) -> Result<(Tensor, Tensor), OpError> {
    let (num_rows, num_channels) = rows_and_channels("add_rms_norm", x)?;
    residual.expect("add_rms_norm", "residual", x.shape())?;
    weight.expect("add_rms_norm", "weight", &[num_channels])?;
    let r = frame.alloc(x.shape(), x.dtype())?;
    let y = frame.alloc(x.shape(), x.dtype())?;
    let args = add_kernel::Args {
        x: x.buffer(),
        residual: residual.buffer(),
        w: weight.buffer(),
        r: r.buffer(),
        y: y.buffer(),
    };
    add_kernel::record(frame.recorder(), args, num_rows, num_channels, eps)?;
    Ok((r, y))
}

/// Layer normalisation over the last axis: `y = (x - mean) / sqrt(var + eps) · weight + bias`, with the biased
/// variance. Exact also where the mean is far larger than the spread.
///
/// # Shapes
/// x `[.., C]`, weight `[C]`, bias `[C]` → `[.., C]`
///
/// # Errors
/// Shapes that do not fit.
pub fn layer_norm(
    frame: &mut Frame,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    eps: f32,
) -> Result<Tensor, OpError> {
    let (num_rows, num_channels) = rows_and_channels("layer_norm", x)?;
    weight.expect("layer_norm", "weight", &[num_channels])?;
    if let Some(bias) = bias {
        bias.expect("layer_norm", "bias", &[num_channels])?;
    }
    let y = frame.alloc(x.shape(), x.dtype())?;
    let b = bias.map(Tensor::buffer);
    let args = layer_kernel::Args { x: x.buffer(), w: weight.buffer(), b, y: y.buffer() };
    layer_kernel::record(frame.recorder(), args, num_rows, num_channels, eps)?;
    Ok(y)
}

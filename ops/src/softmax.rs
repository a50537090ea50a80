//! Softmax over the last axis.

use girih_kernels::softmax as kernel;

use crate::{DType, Frame, OpError, Tensor};

/// What happens to the logits of [`softmax`].
#[derive(Clone, Copy, Debug)]
pub struct Softmax<'a> {
    /// Factor of the logits.
    pub scale: f32,
    /// Bounds the scaled logits by `softcap · tanh(s / softcap)`.
    pub softcap: Option<f32>,
    /// Added `[R, C]`. Finite: `f32::MIN` masks; a row that is masked all over becomes uniform.
    pub mask: Option<&'a Tensor>,
    /// One more logit per row `[R]` that takes part in the denominator only.
    pub sink: Option<&'a Tensor>,
}

impl Default for Softmax<'_> {
    fn default() -> Self {
        Self { scale: 1.0, softcap: None, mask: None, sink: None }
    }
}

/// `p = softmax(softcap(x · scale) + mask)` over the last axis, and the natural logarithm of the denominators.
///
/// # Shapes
/// x `[R, C]` → p `[R, C]`, lse `[R]`
///
/// # Errors
/// Shapes that do not fit, a soft cap that is not positive.
pub fn softmax(frame: &mut Frame, x: &Tensor, opts: &Softmax<'_>) -> Result<(Tensor, Tensor), OpError> {
    x.expect_dtype("softmax", "x", DType::F32)?;
    let [num_rows, num_channels] = x.dims("softmax", "x")?;
    if let Some(mask) = opts.mask {
        mask.expect("softmax", "mask", x.shape())?;
    }
    if let Some(sink) = opts.sink {
        sink.expect("softmax", "sink", &[num_rows])?;
    }
    if let Some(softcap) = opts.softcap
        && (softcap.is_nan() || softcap <= 0.0)
    {
        let want = "positive".into();
        return Err(OpError::Value { op: "softmax", what: "softcap", got: f64::from(softcap), want });
    }
    let p = frame.alloc(x.shape(), DType::F32)?;
    let lse = frame.alloc(&[num_rows], DType::F32)?;
    let args = kernel::Args {
        x: x.buffer(),
        mask: opts.mask.map(Tensor::buffer),
        sink: opts.sink.map(Tensor::buffer),
        p: p.buffer(),
        lse: lse.buffer(),
    };
    kernel::record(frame.recorder(), args, num_rows, num_channels, opts.scale, opts.softcap)?;
    Ok((p, lse))
}

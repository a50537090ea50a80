//! Linear layers.

use girih_kernels::fused;
use girih_kernels::matmul::gemv::norm_add;
use girih_kernels::matmul::int::is_integer;
use girih_kernels::matmul::{Act, Epilogue, Part, Shape, gemm, gemm_int, gemv, gemv_int, in_one_binding};

use crate::{
    DType, Frame, Matrix, Mix, OpError, QuantActivation, RowMix, RowTransform, Tensor, WeightFormat,
};
use crate::{fake_quantize_rows, layer_norm, quantize_rows, rms_norm, rms_norm_add, transform_rows};

const OP: &str = "linear";

/// Normalisation of x before the product.
#[derive(Clone, Copy, Debug)]
pub enum Norm<'a> {
    /// `x / sqrt(mean(x²) + eps) · weight` (Zhang & Sennrich 2019)
    Rms {
        /// `[K]`
        weight: &'a Tensor,
        /// Added to the mean square.
        eps: f32,
    },
    /// `(x - mean(x)) / sqrt(var(x) + eps) · weight + bias` (Ba et al. 2016)
    Layer {
        /// `[K]`
        weight: &'a Tensor,
        /// `[K]`
        bias: Option<&'a Tensor>,
        /// Added to the variance.
        eps: f32,
    },
}

/// What is fused with the product.
#[derive(Clone, Copy, Debug)]
pub struct Linear<'a> {
    /// Normalisation of x.
    pub norm: Option<Norm<'a>>,
    /// Bias `[N]`.
    pub bias: Option<&'a Tensor>,
    /// Factor of `x · Wᵀ + bias`.
    pub alpha: f32,
    /// Activation.
    pub act: Act,
    /// Added at the end; of the shape of the result.
    pub residual: Option<&'a Tensor>,
}

impl Default for Linear<'_> {
    fn default() -> Self {
        Self { norm: None, bias: None, alpha: 1.0, act: Act::Identity, residual: None }
    }
}

/// The mixing of a matrix as rows of x are given it.
pub(crate) fn row_mix(mix: &Mix) -> RowMix<'_> {
    match mix {
        Mix::None => RowMix::None,
        Mix::Hadamard { block } => RowMix::Hadamard { block: *block },
        Mix::Kronecker { p1, p2 } => RowMix::Kronecker { p1, p2 },
        Mix::Permute(index) => RowMix::Permute(index),
    }
}

/// The parts of a matrix as kernels take them.
pub(crate) fn parts(w: &Matrix) -> Vec<Part<'_>> {
    w.parts.iter().map(crate::matrix::Part::view).collect()
}

/// The same, where integers are multiplied with them.
pub(crate) fn int_parts(w: &Matrix) -> Result<Vec<Part<'_>>, OpError> {
    let activation = w.input.activation;
    for part in &w.parts {
        let weights = match part.format {
            WeightFormat::Quant(format) if is_integer(format) => continue,
            WeightFormat::Quant(format) => format.to_string(),
            _ => "that are not quantised".to_owned(),
        };
        let what = format!("activations {activation} with weights {weights}");
        return Err(OpError::Unsupported { op: OP, what });
    }
    Ok(parts(w))
}

/// The norm behind a block, whose sum with the residual stream is still to be taken: `residual + rms_norm(x, weight)`.
#[derive(Clone, Copy, Debug)]
pub struct NormAdd<'a> {
    /// What the block has returned `[M, K]`.
    pub x: &'a Tensor,
    /// `[K]`
    pub weight: &'a Tensor,
    /// Added to the mean square.
    pub eps: f32,
    /// Residual stream `[M, K]`.
    pub residual: &'a Tensor,
}

/// Weight and bias of a norm.
fn vectors_of(norm: Option<Norm<'_>>) -> [Option<&Tensor>; 2] {
    match norm {
        None => [None, None],
        Some(Norm::Rms { weight, .. }) => [Some(weight), None],
        Some(Norm::Layer { weight, bias, .. }) => [Some(weight), bias],
    }
}

/// Whether a product of few rows can take the norm before it along: its vectors and the bias behind are bound as one.
pub(crate) fn is_fused(frame: &Frame, norm: Option<Norm<'_>>, epilogue: &Epilogue<'_>) -> bool {
    let [weight, bias] = vectors_of(norm).map(|v| v.map(Tensor::buffer));
    in_one_binding(frame.gpu().caps(), [weight, bias, epilogue.bias])
}

/// The norm as the kernels of few rows take it.
pub(crate) fn fused_norm(norm: Option<Norm<'_>>) -> fused::Norm<'_> {
    match norm {
        None => fused::Norm::None,
        Some(Norm::Rms { weight, eps }) => fused::Norm::Rms { weight: weight.buffer(), eps },
        Some(Norm::Layer { weight, bias, eps }) => {
            fused::Norm::Layer { weight: weight.buffer(), bias: bias.map(Tensor::buffer), eps }
        }
    }
}

/// The product of integers. Where a device has no instruction for it, the numbers that they stand for are multiplied in
/// f32, which is the same but for the rounding of sums. Of one row, blocks of 32 channels are quantised inside the product, which saves a dispatch;
/// of more rows every workgroup would repeat too much of that work, so a kernel of its own does it, as it does for
/// everything else.
fn linear_int(
    frame: &mut Frame,
    x: &Tensor,
    w: &Matrix,
    opts: &Linear<'_>,
    epilogue: Epilogue<'_>,
    y: &Tensor,
) -> Result<(), OpError> {
    let [m, k] = x.dims(OP, "x")?;
    let shape = Shape { m, n: w.n, k };
    let parts = int_parts(w)?;
    if !frame.gpu().caps().integer_dot {
        let transform =
            RowTransform { norm: opts.norm, scale: w.input.scale.as_ref(), mix: row_mix(&w.input.mix) };
        let x = fake_quantize_rows(frame, x, &transform, w.input.activation)?;
        return product_float(frame, &x, w, None, epilogue, y);
    }
    let inside = w.input.activation == QuantActivation::INT8
        && w.input.scale.is_none()
        && matches!(w.input.mix, Mix::None)
        && !matches!(opts.norm, Some(Norm::Layer { .. }))
        && m == 1
        && is_fused(frame, opts.norm, &epilogue);
    if inside {
        let rms_norm = match opts.norm {
            Some(Norm::Rms { weight, eps }) => Some((weight.buffer(), eps)),
            _ => None,
        };
        let input = gemv_int::Operand::Float { x: x.buffer(), rms_norm };
        let args = gemv_int::Args { input, parts: &parts, epilogue, y: y.buffer() };
        return Ok(gemv_int::record(frame.recorder(), args, shape)?);
    }
    let mix = row_mix(&w.input.mix);
    let transform = RowTransform { norm: opts.norm, scale: w.input.scale.as_ref(), mix };
    let x = quantize_rows(frame, x, &transform, w.input.activation)?;
    let (codes, scales) = (x.codes.buffer(), x.scales.buffer());
    if m <= gemv_int::MAX_M {
        let input = gemv_int::Operand::Codes { codes, scales };
        let args = gemv_int::Args { input, parts: &parts, epilogue, y: y.buffer() };
        gemv_int::record(frame.recorder(), args, shape)?;
    } else {
        let scratch = partial_sums(frame, gemm_int::scratch_bytes(frame.gpu().caps(), shape, &parts))?;
        let args = gemm_int::Args {
            x_codes: codes,
            x_scales: scales,
            parts: &parts,
            epilogue,
            scratch: scratch.as_ref().map(Tensor::buffer),
            y: y.buffer(),
        };
        gemm_int::record(frame.recorder(), args, shape)?;
    }
    Ok(())
}

/// `y = residual + act(alpha · (x' · Wᵀ + bias))` with `x' = quantise(mix(scale · norm(x)))` as `w.input` says; of a
/// plain input x' is norm(x). With [`Act::Glu`] the rows of W (and of bias) come interleaved, row 2i is gate i and row
/// 2i + 1 is up i, and `y = residual + act(gate) · up`.
///
/// Of up to 4 rows the norm is taken along into the product where its vectors and the bias are ranges of one buffer
/// ([`Tensor::vectors_from_f32`]), or there is only one of them; else it is a dispatch of its own.
///
/// # Shapes
/// x `[M, K]`, w `[N, K]`, bias `[N]`, residual like y → y `[M, N]`, or `[M, N / 2]` with a gated linear unit
///
/// # Errors
/// Shapes and element types that do not fit, integer activations with weights that are no integers, an odd N with a
/// gated linear unit, a cap that is not positive, sizes over a limit of the device.
pub fn linear(frame: &mut Frame, x: &Tensor, w: &Matrix, opts: &Linear<'_>) -> Result<Tensor, OpError> {
    let (epilogue, y) = prepare(frame, x, w, opts)?;
    match w.input.activation {
        QuantActivation::Float => linear_float(frame, x, w, opts, epilogue, &y)?,
        QuantActivation::Int { .. } => linear_int(frame, x, w, opts, epilogue, &y)?,
    }
    Ok(y)
}

/// The end of a block that normalises what it returns, and the product behind it: `s = residual + rms_norm(x)` as
/// [`rms_norm_add`] computes it and `y` as [`linear`] of s. Returns `(s, y)`.
///
/// One dispatch where [`norm_add::pays`], the norm of `opts` is none or an RMS norm, x goes into the product as it is, and
/// the vectors of both norms and the bias are ranges of one buffer ([`Tensor::vectors_from_f32`]); else those of the two.
///
/// # Shapes
/// As of the two: x, residual `[M, K]`, weight `[K]`, w `[N, K]` → s `[M, K]`, y `[M, N]`
///
/// # Errors
/// As of the two.
pub fn rms_norm_add_linear(
    frame: &mut Frame,
    add: &NormAdd<'_>,
    w: &Matrix,
    opts: &Linear<'_>,
) -> Result<(Tensor, Tensor), OpError> {
    let NormAdd { x, weight, eps, residual } = *add;
    let [m, k] = x.dims(OP, "x")?;
    let shape = Shape { m, n: w.n, k };
    let [norm_weight, norm_bias] = vectors_of(opts.norm);
    let vectors = [norm_weight, norm_bias, opts.bias, Some(weight)].map(|v| v.map(Tensor::buffer));
    let caps = frame.gpu().caps();
    let is_one = norm_add::pays(caps, shape, w.parts.iter().map(|part| (part.rows, part.format)))
        && matches!(opts.norm, None | Some(Norm::Rms { .. }))
        && w.input.is_plain()
        && w.input.activation == QuantActivation::Float
        && in_one_binding(caps, vectors);
    if !is_one {
        let sum = rms_norm_add(frame, x, weight, eps, residual)?;
        let y = linear(frame, &sum, w, opts)?;
        return Ok((sum, y));
    }
    weight.expect(OP, "weight", &[k])?;
    residual.expect_dtype(OP, "residual", DType::F32)?;
    residual.expect(OP, "residual", x.shape())?;
    let (epilogue, y) = prepare(frame, x, w, opts)?;
    let sum = frame.alloc(&[m, k], DType::F32)?;
    let parts = parts(w);
    let norm = fused_norm(opts.norm);
    let args = gemv::Args { x: x.buffer(), parts: &parts, norm, epilogue, y: y.buffer() };
    let add =
        norm_add::NormAdd { weight: weight.buffer(), eps, stream: residual.buffer(), sum: sum.buffer() };
    norm_add::record(frame.recorder(), args, add, shape)?;
    Ok((sum, y))
}

/// Checks the operands of a product. Its epilogue, and memory for its result.
fn prepare<'a>(
    frame: &mut Frame,
    x: &Tensor,
    w: &Matrix,
    opts: &Linear<'a>,
) -> Result<(Epilogue<'a>, Tensor), OpError> {
    let [m, k] = x.dims(OP, "x")?;
    x.expect_dtype(OP, "x", DType::F32)?;
    x.expect(OP, "x", &[m, w.k])?;
    if w.experts != 1 {
        let want = "1: rows of x are not routed".into();
        return Err(OpError::Value { op: OP, what: "experts of w", got: w.experts.into(), want });
    }
    let glu = opts.act.is_glu();
    if glu && !w.n.is_multiple_of(2) {
        let want = "even: pairs of gate and up".into();
        return Err(OpError::Value { op: OP, what: "rows of w", got: w.n.into(), want });
    }
    let cap = opts.act.cap();
    if !(cap > 0.0 && cap.is_finite()) {
        let want = "positive and finite".into();
        return Err(OpError::Value { op: OP, what: "cap of the activation", got: cap.into(), want });
    }
    let optional = |tensor: Option<&Tensor>, name, want: &[u32]| match tensor {
        Some(tensor) => {
            tensor.expect_dtype(OP, name, DType::F32)?;
            tensor.expect(OP, name, want)
        }
        None => Ok(()),
    };
    let y_shape = [m, opts.act.columns(w.n)];
    optional(opts.bias, "bias", &[w.n])?;
    optional(opts.residual, "residual", &y_shape)?;
    match opts.norm {
        None => {}
        Some(Norm::Rms { weight, .. }) => optional(Some(weight), "norm weight", &[k])?,
        Some(Norm::Layer { weight, bias, .. }) => {
            optional(Some(weight), "norm weight", &[k])?;
            optional(bias, "norm bias", &[k])?;
        }
    }
    if glu && let Some(part) = w.parts.iter().find(|p| !p.row0.is_multiple_of(2)) {
        let want = "even: pairs of gate and up in one part".into();
        return Err(OpError::Value { op: OP, what: "first row of a part of w", got: part.row0.into(), want });
    }
    let epilogue = Epilogue {
        bias: opts.bias.map(Tensor::buffer),
        alpha: opts.alpha,
        act: opts.act,
        residual: opts.residual.map(Tensor::buffer),
    };
    let y = frame.alloc(&y_shape, DType::F32)?;
    Ok((epilogue, y))
}

/// The product of f32 activations. Scales and mixings of x take a kernel of their own, which normalises too.
fn linear_float(
    frame: &mut Frame,
    x: &Tensor,
    w: &Matrix,
    opts: &Linear<'_>,
    epilogue: Epilogue<'_>,
    y: &Tensor,
) -> Result<(), OpError> {
    let (x, norm) = if w.input.is_plain() {
        (x.clone(), opts.norm)
    } else {
        let mix = row_mix(&w.input.mix);
        let transform = RowTransform { norm: opts.norm, scale: w.input.scale.as_ref(), mix };
        (transform_rows(frame, x, &transform)?, None)
    };
    product_float(frame, &x, w, norm, epilogue, y)
}

/// Memory for partial sums, if there are any.
fn partial_sums(frame: &mut Frame, bytes: u64) -> Result<Option<Tensor>, OpError> {
    match bytes {
        0 => Ok(None),
        bytes => Ok(Some(frame.alloc(&[bytes.div_ceil(4) as u32], DType::F32)?)),
    }
}

/// The product of f32 activations as they are, with the norm before it.
fn product_float(
    frame: &mut Frame,
    x: &Tensor,
    w: &Matrix,
    norm: Option<Norm<'_>>,
    epilogue: Epilogue<'_>,
    y: &Tensor,
) -> Result<(), OpError> {
    let [m, k] = x.dims(OP, "x")?;
    let shape = Shape { m, n: w.n, k };
    let parts = parts(w);
    let fused = m <= gemv::MAX_M && is_fused(frame, norm, &epilogue);
    let (x, norm) = match norm {
        Some(Norm::Rms { weight, eps }) if !fused => (&rms_norm(frame, x, weight, eps)?, None),
        Some(Norm::Layer { weight, bias, eps }) if !fused => {
            (&layer_norm(frame, x, weight, bias, eps)?, None)
        }
        norm => (x, norm),
    };
    if m <= gemv::MAX_M {
        let norm = fused_norm(norm);
        let args = gemv::Args { x: x.buffer(), parts: &parts, norm, epilogue, y: y.buffer() };
        return Ok(gemv::record(frame.recorder(), args, shape)?);
    }
    let scratch = partial_sums(frame, gemm::scratch_bytes(frame.gpu().caps(), shape, &parts))?;
    let scratch = scratch.as_ref().map(Tensor::buffer);
    let args = gemm::Args { x: x.buffer(), parts: &parts, epilogue, scratch, y: y.buffer() };
    Ok(gemm::record(frame.recorder(), args, shape)?)
}

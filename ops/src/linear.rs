//! Linear layers.

use girih_kernels::matmul::{Act, Epilogue, Part, Shape, gemm, gemv};

use crate::{DType, Frame, Input, Matrix, OpError, Tensor, layer_norm, rms_norm};

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

/// What no kernel does yet: scaled, mixed and quantised activations.
fn check_input(input: &Input) -> Result<(), OpError> {
    if input.is_plain() {
        return Ok(());
    }
    Err(OpError::Unsupported {
        op: OP,
        what: format!("an input that is {}, scaled or mixed", input.activation),
    })
}

/// `y = residual + act(alpha · (norm(x) · Wᵀ + bias))`. With [`Act::Glu`] the rows of W (and of bias) come
/// interleaved, row 2i is gate i and row 2i + 1 is up i, and `y = residual + act(gate) · up`.
///
/// # Shapes
/// x `[M, K]`, w `[N, K]`, bias `[N]`, residual like y → y `[M, N]`, or `[M, N / 2]` with a gated linear unit
///
/// # Errors
/// Shapes and element types that do not fit, an input of w that is not plain, an odd N with a gated linear unit, a cap that is not positive, sizes
/// over a limit of the device.
pub fn linear(frame: &mut Frame, x: &Tensor, w: &Matrix, opts: &Linear<'_>) -> Result<Tensor, OpError> {
    let [m, k] = x.dims(OP, "x")?;
    x.expect_dtype(OP, "x", DType::F32)?;
    x.expect(OP, "x", &[m, w.k])?;
    let glu = opts.act.is_glu();
    if glu && !w.n.is_multiple_of(2) {
        let want = "even: pairs of gate and up".into();
        return Err(OpError::Value { op: OP, what: "rows of w", got: w.n.into(), want });
    }
    if let Act::SoftCap(cap) = opts.act
        && !(cap > 0.0 && cap.is_finite())
    {
        let want = "positive and finite".into();
        return Err(OpError::Value { op: OP, what: "soft cap", got: cap.into(), want });
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
    check_input(&w.input)?;
    let shape = Shape { m, n: w.n, k };
    let mut parts = Vec::new();
    for p in &w.parts {
        let (buffer, scales) = (&p.buffer, p.scales.as_ref());
        parts.push(Part { buffer, scales, format: p.format, row0: p.row0, rows: p.rows });
    }
    let epilogue = Epilogue {
        bias: opts.bias.map(Tensor::buffer),
        alpha: opts.alpha,
        act: opts.act,
        residual: opts.residual.map(Tensor::buffer),
    };
    let y = frame.alloc(&y_shape, DType::F32)?;
    if m <= gemv::MAX_M {
        let norm = match opts.norm {
            None => gemv::Norm::None,
            Some(Norm::Rms { weight, eps }) => gemv::Norm::Rms { weight: weight.buffer(), eps },
            Some(Norm::Layer { weight, bias, eps }) => {
                gemv::Norm::Layer { weight: weight.buffer(), bias: bias.map(Tensor::buffer), eps }
            }
        };
        let args = gemv::Args { x: x.buffer(), parts: &parts, norm, epilogue, y: y.buffer() };
        gemv::record(frame.recorder(), args, shape)?;
        return Ok(y);
    }
    let normed = match opts.norm {
        None => x.clone(),
        Some(Norm::Rms { weight, eps }) => rms_norm(frame, x, weight, eps)?,
        Some(Norm::Layer { weight, bias, eps }) => layer_norm(frame, x, weight, bias, eps)?,
    };
    let scratch = match gemm::scratch_bytes(frame.gpu().caps(), shape) {
        0 => None,
        bytes => Some(frame.alloc(&[bytes.div_ceil(4) as u32], DType::F32)?),
    };
    let scratch = scratch.as_ref().map(Tensor::buffer);
    let args = gemm::Args { x: normed.buffer(), parts: &parts, epilogue, scratch, y: y.buffer() };
    gemm::record(frame.recorder(), args, shape)?;
    Ok(y)
}

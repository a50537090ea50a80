//! Rotations and other mixings of channels, and the quantiser of activations.

use girih_kernels::fused;
use girih_kernels::quant::QuantActivation;
use girih_kernels::transform as kernel;

use crate::norm::rows_and_channels;
use crate::{DType, Frame, Norm, OpError, Tensor};

/// Mixing of the channels of each row.
#[derive(Clone, Copy, Debug, Default)]
pub enum RowMix<'a> {
    /// None.
    #[default]
    None,
    /// `x Hᵀ / sqrt(block)` of each run of `block` channels; 0: of the whole row.
    Hadamard {
        /// Channels that are mixed with one another.
        block: u32,
    },
    /// `P1ᵀ X P2` with the row seen as `X [n1, n2]`.
    Kronecker {
        /// `[n1, n1]`
        p1: &'a Tensor,
        /// `[n2, n2]`
        p2: &'a Tensor,
    },
    /// `y[j] = x[index[j]]`
    Permute(&'a Tensor),
}

/// What is done to each row, in this order.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowTransform<'a> {
    /// Normalisation.
    pub norm: Option<Norm<'a>>,
    /// `[C]`, multiplies what was normalised.
    pub scale: Option<&'a Tensor>,
    /// Mixing.
    pub mix: RowMix<'a>,
}

/// Rows of integers with their scales, as integer products read them; B = ceil(k / 32) blocks a row.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// u32 `[M, B, 8]`: the signed bytes of 32 channels, the first one lowest; 0 from k on.
    pub codes: Tensor,
    /// u32 `[M, B, 2]`: the bits of the block's f32 scale, then the sums of its first and its last 16 codes as two
    /// 16-bit integers.
    pub scales: Tensor,
    /// Rows M.
    pub m: u32,
    /// Channels K.
    pub k: u32,
}

fn kernel_mix<'a>(op: &'static str, mix: RowMix<'a>, num_channels: u32) -> Result<kernel::Mix<'a>, OpError> {
    Ok(match mix {
        RowMix::None => kernel::Mix::None,
        RowMix::Hadamard { block } => {
            kernel::Mix::Hadamard(kernel::Hadamard { block, stride: 1, transposed: false })
        }
        RowMix::Permute(index) => {
            index.expect_dtype(op, "index", DType::U32)?;
            index.expect(op, "index", &[num_channels])?;
            kernel::Mix::Permute { index: index.buffer() }
        }
        RowMix::Kronecker { p1, p2 } => {
            let order = |p: &Tensor, name| {
                p.expect_dtype(op, name, DType::F32)?;
                let [rows, columns] = p.dims(op, name)?;
                p.expect(op, name, &[rows.max(columns); 2])?;
                Ok::<u32, OpError>(rows)
            };
            let (n1, n2) = (order(p1, "p1")?, order(p2, "p2")?);
            kernel::Mix::Kronecker { p1: p1.buffer(), p2: p2.buffer(), n1, n2 }
        }
    })
}

/// Checks the operands of a transform; rows, channels and the kernel's norm.
fn checked<'a>(
    op: &'static str,
    x: &Tensor,
    transform: &RowTransform<'a>,
) -> Result<(u32, u32, fused::Norm<'a>), OpError> {
    let (num_rows, num_channels) = rows_and_channels(op, x)?;
    let channels = |tensor: &Tensor, name| {
        tensor.expect_dtype(op, name, DType::F32)?;
        tensor.expect(op, name, &[num_channels])
    };
    if let Some(scale) = transform.scale {
        channels(scale, "scale")?;
    }
    let norm = match transform.norm {
        None => fused::Norm::None,
        Some(Norm::Rms { weight, eps }) => {
            channels(weight, "norm weight")?;
            fused::Norm::Rms { weight: weight.buffer(), eps }
        }
        Some(Norm::Layer { weight, bias, eps }) => {
            channels(weight, "norm weight")?;
            if let Some(bias) = bias {
                channels(bias, "norm bias")?;
            }
            fused::Norm::Layer { weight: weight.buffer(), bias: bias.map(Tensor::buffer), eps }
        }
    };
    Ok((num_rows, num_channels, norm))
}

/// `y = mix(scale · norm(x))` of each row, one kernel.
///
/// # Shapes
/// x `[.., C]`, scale `[C]` → `[.., C]`
///
/// # Errors
/// Shapes and element types that do not fit, a Hadamard transform of a size without a known matrix, matrices of a
/// Kronecker transform with an order over 8 times the invocations of a workgroup (2048 with the usual 256 or more).
pub fn transform_rows(
    frame: &mut Frame,
    x: &Tensor,
    transform: &RowTransform<'_>,
) -> Result<Tensor, OpError> {
    let op = "transform_rows";
    let (_, num_channels, _) = checked(op, x, transform)?;
    let mix = kernel_mix(op, transform.mix, num_channels)?;
    record_f32(frame, op, x, transform, mix)
}

fn record_f32(
    frame: &mut Frame,
    op: &'static str,
    x: &Tensor,
    transform: &RowTransform<'_>,
    mix: kernel::Mix<'_>,
) -> Result<Tensor, OpError> {
    let (num_rows, num_channels, norm) = checked(op, x, transform)?;
    let y = frame.alloc(x.shape(), DType::F32)?;
    let args = kernel::Args {
        x: x.buffer(),
        norm,
        scale: transform.scale.map(Tensor::buffer),
        mix,
        output: kernel::Output::F32(y.buffer()),
    };
    kernel::record(frame.recorder(), args, num_rows, num_channels)?;
    Ok(y)
}

/// Numbers that the integers of [`quantize_rows`] stand for: `scale · q`, for products in f32 where a device has no
/// instruction for those of integers.
///
/// # Shapes
/// x `[.., C]` → f32 `[.., C]`
///
/// # Errors
/// As [`quantize_rows`].
pub fn fake_quantize_rows(
    frame: &mut Frame,
    x: &Tensor,
    transform: &RowTransform<'_>,
    activation: QuantActivation,
) -> Result<Tensor, OpError> {
    let op = "fake_quantize_rows";
    let (m, k, norm) = checked(op, x, transform)?;
    let mix = kernel_mix(op, transform.mix, k)?;
    let scratch = scratch(frame, [m, k], &mix, activation)?;
    let y = frame.alloc(x.shape(), DType::F32)?;
    let args = kernel::Args {
        x: x.buffer(),
        norm,
        scale: transform.scale.map(Tensor::buffer),
        mix,
        output: kernel::Output::FakeQuantized {
            activation,
            y: y.buffer(),
            scratch: scratch.as_ref().map(Tensor::buffer),
        },
    };
    kernel::record(frame.recorder(), args, m, k)?;
    Ok(y)
}

/// Memory for rows that are mixed and then quantised, if they need any.
fn scratch(
    frame: &mut Frame,
    [m, k]: [u32; 2],
    mix: &kernel::Mix<'_>,
    activation: QuantActivation,
) -> Result<Option<Tensor>, OpError> {
    Ok(match kernel::scratch_bytes(frame.gpu().caps(), m, k, mix, activation)? {
        0 => None,
        _ => Some(frame.alloc(&[m, k], DType::F32)?),
    })
}

/// [`transform_rows`], then symmetric integers: `scale = clip · max|y| / qmax` of a row or of a group of channels,
/// `q = clamp(round_half_even(y / scale), -qmax - 1, qmax)`, `qmax = 2^(bits - 1) - 1`; the scale of zeros is 1. NaN and
/// infinities make the scale of their 32 channels NaN or infinite, so that products are. One kernel; two where rows are mixed that are too long for the device's workgroup memory.
///
/// # Shapes
/// x `[.., C]` → M = the number of rows, K = C
///
/// # Errors
/// As [`transform_rows`]; an activation that is not an integer, bits outside of 2 to 8, groups that are no multiples
/// of 32, a clip outside of (0, 1].
pub fn quantize_rows(
    frame: &mut Frame,
    x: &Tensor,
    transform: &RowTransform<'_>,
    activation: QuantActivation,
) -> Result<Quantized, OpError> {
    let op = "quantize_rows";
    let (m, k, norm) = checked(op, x, transform)?;
    let mix = kernel_mix(op, transform.mix, k)?;
    let scratch = scratch(frame, [m, k], &mix, activation)?;
    let blocks = kernel::num_blocks(k);
    let codes = frame.alloc(&[m, blocks, 8], DType::U32)?;
    let scales = frame.alloc(&[m, blocks, 2], DType::U32)?;
    let args = kernel::Args {
        x: x.buffer(),
        norm,
        scale: transform.scale.map(Tensor::buffer),
        mix,
        output: kernel::Output::Quantized {
            activation,
            codes: codes.buffer(),
            scales: scales.buffer(),
            scratch: scratch.as_ref().map(Tensor::buffer),
        },
    };
    kernel::record(frame.recorder(), args, m, k)?;
    Ok(Quantized { codes, scales, m, k })
}

/// Orthonormal Hadamard transform of the last axis, of each run of `block` channels (0: of all): `y = x Hᵀ / sqrt(n)`;
/// transposed, its inverse, `y = x H / sqrt(n)`. H is Sylvester's matrix where n is a power of two, else
/// [`HadamardPlan`](girih_kernels::quant::HadamardPlan) says which.
///
/// # Shapes
/// x `[.., C]` → `[.., C]`, C a multiple of `block`
///
/// # Errors
/// A size without a known matrix, shapes that do not fit.
pub fn hadamard(frame: &mut Frame, x: &Tensor, block: u32, transposed: bool) -> Result<Tensor, OpError> {
    let mix = kernel::Mix::Hadamard(kernel::Hadamard { block, stride: 1, transposed });
    record_f32(frame, "hadamard", x, &RowTransform::default(), mix)
}

/// [`hadamard`] along the heads: channel j of all heads of a token is one vector.
///
/// # Shapes
/// x `[T, H, D]` → `[T, H, D]`
///
/// # Errors
/// A number of heads without a known matrix, or with a power of two over 1024 in it; shapes that do not fit.
pub fn hadamard_heads(frame: &mut Frame, x: &Tensor, transposed: bool) -> Result<Tensor, OpError> {
    let op = "hadamard_heads";
    let [tokens, heads, head_dim] = x.dims(op, "x")?;
    let rows = x.reshape(&[tokens, heads.saturating_mul(head_dim)])?;
    let mix = kernel::Mix::Hadamard(kernel::Hadamard { block: heads, stride: head_dim, transposed });
    record_f32(frame, op, &rows, &RowTransform::default(), mix)?.reshape(x.shape())
}

/// Kronecker transform of the last axis: `y = (scale · x) (P1 ⊗ P2)`, the row seen as `X [n1, n2]`: `P1ᵀ X P2`.
///
/// # Shapes
/// x `[.., n1 · n2]`, scale `[n1 · n2]`, p1 `[n1, n1]`, p2 `[n2, n2]` → `[.., n1 · n2]`
///
/// # Errors
/// Shapes that do not fit, orders as for [`transform_rows`].
pub fn kronecker(
    frame: &mut Frame,
    x: &Tensor,
    scale: Option<&Tensor>,
    p1: &Tensor,
    p2: &Tensor,
) -> Result<Tensor, OpError> {
    transform_rows(frame, x, &RowTransform { norm: None, scale, mix: RowMix::Kronecker { p1, p2 } })
}

/// `y[.., j] = x[.., index[j]]`
///
/// # Shapes
/// x `[.., C]`, index u32 `[C]`, a permutation of 0..C → `[.., C]`
///
/// # Errors
/// Shapes and element types that do not fit.
pub fn permute_columns(frame: &mut Frame, x: &Tensor, index: &Tensor) -> Result<Tensor, OpError> {
    transform_rows(frame, x, &RowTransform { mix: RowMix::Permute(index), ..RowTransform::default() })
}

//! Products of activations with weight matrices, `y = epilogue(norm(x) · Wᵀ)`.
//!
//! [`gemv`] is for the few rows of a decode step and normalises x on the way; [`gemm`] is for many rows. Both read
//! W through one function of a shader part (`load_w8`), so a weight format is a part and a [`WeightFormat`], and both
//! share the epilogue: bias, factor, activation, gated linear unit, residual.

mod bench;
pub mod gemm;
pub mod gemm_int;
pub mod gemv;
pub mod gemv_int;
pub mod int;
mod reference;
pub mod split_sum;

use girih_shaders::Selection;

use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::device::Gpu;
use crate::error::KernelError;
use crate::quant::{Code, Format, Scale};
use crate::rows;

pub use crate::quant::WeightFormat;

/// Activation of the gate of a gated linear unit (Shazeer 2020).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GluAct {
    /// SwiGLU.
    Silu,
    /// GEGLU with the exact GELU.
    GeluErf,
    /// GEGLU with the tanh approximation.
    GeluTanh,
    /// ReGLU.
    Relu,
}

/// What is applied to `alpha (x · Wᵀ + bias)`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Act {
    /// Nothing.
    #[default]
    Identity,
    /// `v sigmoid(v)`
    Silu,
    /// `v Phi(v)`
    GeluErf,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// `max(v, 0)`
    Relu,
    /// `cap tanh(v / cap)`, cap positive.
    SoftCap(f32),
    /// `act(gate) · up`; rows of W (and of bias) come interleaved: row 2i is gate i, row 2i + 1 up i.
    Glu(GluAct),
}

impl Act {
    /// Whether pairs of columns become one.
    pub fn is_glu(self) -> bool {
        matches!(self, Self::Glu(_))
    }

    /// Columns of y for `n` rows of W.
    pub fn columns(self, n: u32) -> u32 {
        if self.is_glu() { n / 2 } else { n }
    }

    /// `ACT` of `epilogue.wgsl`.
    fn code(self) -> u32 {
        match self {
            Self::Identity => 0,
            Self::Silu | Self::Glu(GluAct::Silu) => 1,
            Self::GeluErf | Self::Glu(GluAct::GeluErf) => 2,
            Self::GeluTanh | Self::Glu(GluAct::GeluTanh) => 3,
            Self::Relu | Self::Glu(GluAct::Relu) => 4,
            Self::SoftCap(_) => 5,
        }
    }

    fn soft_cap(self) -> f32 {
        if let Self::SoftCap(cap) = self { cap } else { 1.0 }
    }
}

/// x `[M, K]`, W `[N, K]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of x.
    pub m: u32,
    /// Rows of W.
    pub n: u32,
    /// Channels.
    pub k: u32,
}

impl Shape {
    /// Groups of 8 channels.
    fn num_k8(self) -> u32 {
        self.k.div_ceil(8)
    }

    /// Whether rows of x are whole groups.
    fn aligned(self) -> bool {
        self.k.is_multiple_of(8)
    }

    fn check(self, kernel: &'static str, glu: bool) -> Result<(), KernelError> {
        let bad =
            |field, got: u32, must_be| Err(KernelError::BadParam { kernel, field, got: got.into(), must_be });
        if self.k == 0 {
            return bad("k", self.k, "positive");
        }
        if self.n == 0 {
            return bad("n", self.n, "positive");
        }
        if glu && !self.n.is_multiple_of(2) {
            return bad("n", self.n, "even: rows of W are pairs of gate and up");
        }
        Ok(())
    }
}

/// Rows `row0 .. row0 + rows` of W. Parts of one matrix may differ in format.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Elements or codes.
    pub buffer: &'a Buffer,
    /// Scales of quantised rows.
    pub scales: Option<&'a Buffer>,
    /// How the rows lie in memory.
    pub format: WeightFormat,
    /// First row; even where columns are pairs.
    pub row0: u32,
    /// Number of rows.
    pub rows: u32,
}

impl Part<'_> {
    /// Checks sizes. The buffer of scales, if the format has one; what stands in for it, if not.
    fn scales(&self, kernel: &'static str, gpu: &Gpu, k: u32) -> Result<Buffer, KernelError> {
        let want = rows::product([self.rows.into(), self.format.row_bytes(k)]);
        check_sizes(kernel, [("w", Some(self.buffer), want)])?;
        let want = rows::product([self.rows.into(), self.format.scale_row_bytes(k)]);
        match self.scales {
            Some(scales) if scales.size() >= want => Ok(scales.clone()),
            None if want == 0 => Ok(gpu.dummy()?),
            scales => {
                let got = scales.map_or(0, Buffer::size);
                Err(KernelError::BadBuffer { kernel, binding: "w_scales", got, want })
            }
        }
    }
}

/// Epilogue: `y = residual + act(alpha (sum + bias))`.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// Bias `[N]`.
    pub bias: Option<&'a Buffer>,
    /// Factor.
    pub alpha: f32,
    /// Activation.
    pub act: Act,
    /// Added at the end, of the shape of y.
    pub residual: Option<&'a Buffer>,
}

impl Epilogue<'_> {
    fn kind(&self) -> EpilogueKind {
        EpilogueKind {
            act: self.act.code(),
            glu: self.act.is_glu(),
            bias: self.bias.is_some(),
            residual: self.residual.is_some(),
        }
    }
}

/// What a pipeline has to know of an epilogue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct EpilogueKind {
    act: u32,
    glu: bool,
    bias: bool,
    residual: bool,
}

impl EpilogueKind {
    fn apply(self, selection: Selection) -> Selection {
        selection
            .set("ACT", self.act)
            .set("GLU", self.glu)
            .set("HAS_BIAS", self.bias)
            .set("HAS_RESIDUAL", self.residual)
    }
}

/// The parts of a selection that a shape and a format decide.
fn parts(selection: Selection, format: WeightFormat, aligned: bool) -> Selection {
    let x = if aligned { "matmul/x_vec4.wgsl" } else { "matmul/x_scalar.wgsl" };
    format.apply(selection.part("x_vec4", x))
}

/// Every code, type of scale, zero and second level at least once; groups of 16, 32, 128, 256 and whole rows.
const QUANT_FORMATS: [Format; 17] = [
    Format::Q4_0,
    Format::Q8_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q4_K,
    Format::Q5_K,
    Format::Q6_K,
    Format::IQ4_NL,
    Format::MXFP4,
    Format::NVFP4,
    Format::QOQ,
    Format::fp8(Format::ROW),
    Format::fp8(128),
    Format::asymmetric(Code::Int4, 128),
    Format::asymmetric(Code::Int8, Format::ROW),
    Format { scale: Scale::F32, ..Format::asymmetric(Code::Int4, 24) },
    Format::asymmetric(Code::Int8, 64),
];

/// Refuses buffers of fewer bytes than wanted.
fn check_sizes<const N: usize>(
    kernel: &'static str,
    buffers: [(&'static str, Option<&Buffer>, u64); N],
) -> Result<(), KernelError> {
    for (binding, buffer, want) in buffers {
        if let Some(got) = buffer.map(Buffer::size).filter(|&size| size < want) {
            return Err(KernelError::BadBuffer { kernel, binding, got, want });
        }
    }
    Ok(())
}

/// Refuses operands of an epilogue for `[m, n]` and results that are too short.
fn check_result(
    kernel: &'static str,
    epilogue: &Epilogue<'_>,
    y: &Buffer,
    [m, n]: [u32; 2],
) -> Result<(), KernelError> {
    let y_bytes = rows::product([4, m.into(), epilogue.act.columns(n).into()]);
    let bias = ("bias", epilogue.bias, 4 * u64::from(n));
    check_sizes(kernel, [bias, ("residual", epilogue.residual, y_bytes), ("y", Some(y), y_bytes)])
}

/// Stands in for a buffer that a pipeline does not read.
fn or_dummy(gpu: &Gpu, buffer: Option<&Buffer>) -> Result<Buffer, KernelError> {
    Ok(match buffer {
        Some(buffer) => buffer.clone(),
        None => gpu.dummy()?,
    })
}

/// Workgroups along x and y for a long one-dimensional grid.
fn wrap(caps: &Caps, groups: u32) -> [u32; 2] {
    let grid_x = groups.min(caps.workgroups);
    [grid_x, groups.div_ceil(grid_x.max(1))]
}

//! One product `y = epilogue(norm(x) · Wᵀ)`: its shape, the parts of its matrix, its epilogue, and the parameters that
//! every kernel of the family reads.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::device::Gpu;
use crate::error::KernelError;
use crate::quant::WeightFormat;
use crate::rows;

/// Activation of the gate of a gated linear unit (Shazeer 2020).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GluAct {
    /// SwiGLU.
    Silu,
    /// GEGLU with the exact GELU.
    GeluErf,
    /// GEGLU with the tanh approximation.
    GeluTanh,
    /// ReGLU.
    Relu,
    /// gpt-oss: `(1 + clamp(up, -cap, cap)) · g sigmoid(alpha g)`, `g = min(gate, cap)`.
    SwiGluOai {
        /// Factor in the sigmoid: 1.702.
        alpha: f32,
        /// Cap, positive.
        cap: f32,
    },
    /// DeepSeek-V4: `clamp(up, -cap, cap) · silu(min(gate, cap))`.
    ClampedSilu {
        /// Cap, positive.
        cap: f32,
    },
    /// Step-3.7: `clamp(up, -cap, cap) · min(silu(gate), cap)`.
    SiluClamped {
        /// Cap, positive.
        cap: f32,
    },
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
            Self::Glu(GluAct::SwiGluOai { .. }) => 6,
            Self::Glu(GluAct::ClampedSilu { .. }) => 7,
            Self::Glu(GluAct::SiluClamped { .. }) => 8,
        }
    }

    /// The cap of those that have one, else 1.
    pub fn cap(self) -> f32 {
        match self {
            Self::SoftCap(cap)
            | Self::Glu(
                GluAct::SwiGluOai { cap, .. } | GluAct::ClampedSilu { cap } | GluAct::SiluClamped { cap },
            ) => cap,
            _ => 1.0,
        }
    }

    pub(super) fn glu_alpha(self) -> f32 {
        if let Self::Glu(GluAct::SwiGluOai { alpha, .. }) = self { alpha } else { 1.0 }
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
    pub(super) fn num_k8(self) -> u32 {
        self.k.div_ceil(8)
    }

    /// Blocks of 32 channels.
    pub(super) fn num_blocks(self) -> u32 {
        self.k.div_ceil(32)
    }

    /// Whether rows of x are whole groups.
    pub(super) fn aligned(self) -> bool {
        self.k.is_multiple_of(8)
    }

    pub(super) fn check(self, kernel: &'static str, glu: bool) -> Result<(), KernelError> {
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
    pub(super) fn scales(&self, kernel: &'static str, gpu: &Gpu, k: u32) -> Result<Buffer, KernelError> {
        let want = rows::product([self.rows.into(), self.format.row_bytes(k)]);
        rows::check_sizes(kernel, [("w", Some(self.buffer), want)])?;
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
    pub(super) fn kind(&self) -> EpilogueKind {
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
pub(super) struct EpilogueKind {
    pub act: u32,
    pub glu: bool,
    pub bias: bool,
    pub residual: bool,
}

impl EpilogueKind {
    /// Columns of y for `n` rows of W.
    pub fn columns(self, n: u32) -> u32 {
        if self.glu { n / 2 } else { n }
    }

    pub fn apply(self, selection: Selection) -> Selection {
        selection
            .set("ACT", self.act)
            .set("GLU", self.glu)
            .set("HAS_BIAS", self.bias)
            .set("HAS_RESIDUAL", self.residual)
    }
}

/// Same layout as `Params` in `product.wgsl`.
/// A kernel leaves at 0 what it does not read.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Params {
    /// Rows of x.
    pub num_m: u32,
    /// Rows of this part of W.
    pub num_n: u32,
    /// Channels K.
    pub num_k: u32,
    /// Groups of 8 channels.
    pub num_k8: u32,
    /// Column of y of the part's first row.
    pub n_base: u32,
    /// Columns of y.
    pub y_stride: u32,
    /// Few rows: workgroups along x; more continue along y.
    pub grid_x: u32,
    /// Many rows: groups of 8 channels that one workgroup along z adds up.
    pub split_k8: u32,
    /// Element of `vectors` where the norm's weight begins, a multiple of 4.
    pub norm_weight_at: u32,
    /// Where its bias does, a multiple of 4.
    pub norm_bias_at: u32,
    /// Where the bias of the epilogue does.
    pub bias_at: u32,
    /// Factor behind the bias.
    pub alpha: f32,
    /// Cap of activations that have one.
    pub soft_cap: f32,
    /// Of the normalisation.
    pub eps: f32,
    /// Where the weight of the norm behind the block before does, a multiple of 4.
    pub norm_add_weight_at: u32,
    /// Of that norm.
    pub norm_add_eps: f32,
    /// Of experts: choices of a token.
    pub num_slots: u32,
    /// Slots that share a row of x: 1 or `num_slots`.
    pub x_slots: u32,
    /// First expert of this part of W.
    pub first_expert: u32,
    /// Experts of this part of W, each with `num_n` rows.
    pub num_experts: u32,
    /// Element of `groups` behind the tiles.
    pub slots_at: u32,
    /// Factor in the sigmoid of `SwiGluOai`.
    pub glu_alpha: f32,
}

impl Params {
    /// The product of x with one part of W.
    pub(super) fn of(shape: Shape, part: &Part<'_>, epilogue: &Epilogue<'_>) -> Self {
        Self {
            num_n: part.rows,
            n_base: part.row0,
            alpha: epilogue.alpha,
            soft_cap: epilogue.act.cap(),
            glu_alpha: epilogue.act.glu_alpha(),
            ..Self::plain(shape, epilogue.act.columns(shape.n))
        }
    }

    /// The product with all of W, nothing behind it.
    pub(super) fn plain(shape: Shape, y_stride: u32) -> Self {
        Self {
            num_m: shape.m,
            num_n: shape.n,
            num_k: shape.k,
            num_k8: shape.num_k8(),
            y_stride,
            alpha: 1.0,
            soft_cap: 1.0,
            glu_alpha: 1.0,
            ..Self::default()
        }
    }

    /// Those of test cases: factors that differ from 1.
    pub(super) fn of_case(shape: Shape, epilogue: EpilogueKind) -> Self {
        let plain = Self::plain(shape, epilogue.columns(shape.n));
        Self { alpha: 0.75, soft_cap: 1.5, glu_alpha: 1.7, eps: 1e-5, ..plain }
    }
}

/// Whether kernels for few rows can bind these vectors (weights and biases of the norms before a product, bias of the
/// epilogue behind it): at most one, or all of them ranges of one wgpu buffer that start at multiples of 16 bytes. A
/// buffer of [`Gpu::alloc`] is long enough for any that lie in it.
pub fn in_one_binding<const N: usize>(caps: &Caps, vectors: [Option<&Buffer>; N]) -> bool {
    vectors.iter().flatten().count() == 0 || bind_vectors(caps, vectors).is_some()
}

fn bind_vectors<const N: usize>(caps: &Caps, vectors: [Option<&Buffer>; N]) -> Option<Buffer> {
    let given: Vec<&Buffer> = vectors.into_iter().flatten().collect();
    match given.as_slice() {
        [] | [_] => given.first().copied().cloned(),
        _ => Buffer::around(&given, caps.offset_align.into()).filter(|b| b.size() <= caps.binding_bytes),
    }
}

/// One range with all vectors, and the element at which each starts.
pub(super) fn vectors<const N: usize>(
    kernel: &'static str,
    gpu: &Gpu,
    vectors: [Option<&Buffer>; N],
) -> Result<(Buffer, [u32; N]), KernelError> {
    let got = vectors.iter().flatten().count() as u64;
    if got == 0 {
        return Ok((gpu.dummy()?, [0; N]));
    }
    let Some(all) = bind_vectors(gpu.caps(), vectors) else {
        let (field, must_be) = ("vectors in buffers of their own", "in one buffer, at multiples of 16 bytes");
        return Err(KernelError::BadParam { kernel, field, got, must_be });
    };
    let at = vectors.map(|v| v.map_or(0, |v| ((v.offset() - all.offset()) / 4) as u32));
    Ok((all, at))
}

/// Vectors of a test case, one behind the other at multiples of 4 elements, as [`Buffer::around`] bounds them, and where
/// they start.
pub(super) fn join<const N: usize>(vectors: [&[f32]; N]) -> (Vec<f32>, [u32; N]) {
    let mut all = Vec::new();
    let at = vectors.map(|vector| {
        all.resize(all.len().next_multiple_of(4), 0.0);
        let at = all.len() as u32;
        all.extend_from_slice(vector);
        at
    });
    all.resize(all.len().next_multiple_of(4), 0.0);
    (all, at)
}

/// Refuses operands of an epilogue for `[m, n]` and results that are too short.
pub(super) fn check_result(
    kernel: &'static str,
    epilogue: &Epilogue<'_>,
    y: &Buffer,
    [m, n]: [u32; 2],
) -> Result<(), KernelError> {
    let y_bytes = rows::product([4, m.into(), epilogue.act.columns(n).into()]);
    let bias = ("bias", epilogue.bias, 4 * u64::from(n));
    rows::check_sizes(kernel, [bias, ("residual", epilogue.residual, y_bytes), ("y", Some(y), y_bytes)])
}

//! `y = mix(scale · norm(x))` row by row, in f32 or as integers with their scales: what stands between activations
//! and a quantised product.
//!
//! Quantised rows are written as integer products read them, `B = ceil(K / 32)` blocks each: `x_codes [M, B, 2]` of 16
//! bytes, the signed codes of 32 channels in their order (0 beyond K), and `x_scales [M, B]` of 8 bytes, the block's
//! scale in f32 and the sums of its first and of its last 16 codes as two 16-bit integers, the first one low.

mod cases;
mod reference;

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::choice::Choice;
use crate::error::KernelError;
use crate::fused::Norm;
use crate::quant::{Format, HadamardPlan, QuantActivation, hadamard};
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};

/// Mixing of the channels of a row.
#[derive(Clone, Copy, Debug)]
pub enum Mix<'a> {
    /// None.
    None,
    /// `y[j] = x[index[j]]`
    Permute {
        /// u32 `[n]`, a permutation of 0..n.
        index: &'a Buffer,
    },
    /// `x Hᵀ / sqrt(n)`, as [`HadamardPlan`] defines it.
    Hadamard(Hadamard),
    /// `P1ᵀ X P2`, the row seen as `X [n1, n2]`, `n1 · n2 = n`.
    Kronecker {
        /// `[n1, n1]`
        p1: &'a Buffer,
        /// `[n2, n2]`
        p2: &'a Buffer,
        /// Order of P1.
        n1: u32,
        /// Order of P2.
        n2: u32,
    },
}

/// Which channels a Hadamard transform mixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hadamard {
    /// Number of channels that are mixed with one another; 0: as many as there are, divided by the stride.
    pub block: u32,
    /// Distance of these channels: 1, or the size of a head where heads are mixed.
    pub stride: u32,
    /// H instead of Hᵀ: the inverse.
    pub transposed: bool,
}

/// Where results go.
#[derive(Clone, Copy, Debug)]
pub enum Output<'a> {
    /// f32 `[M, n]`
    F32(&'a Buffer),
    /// Integers and their scales, as this module's head says.
    Quantized {
        /// Bits, channels of a scale, clip.
        activation: QuantActivation,
        /// `x_codes`
        codes: &'a Buffer,
        /// `x_scales`
        scales: &'a Buffer,
        /// [`scratch_bytes`], where that is not 0.
        scratch: Option<&'a Buffer>,
    },
}

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// f32 `[M, n]`
    pub x: &'a Buffer,
    /// Normalisation of x.
    pub norm: Norm<'a>,
    /// f32 `[n]`, multiplies what was normalised.
    pub scale: Option<&'a Buffer>,
    /// Mixing.
    pub mix: Mix<'a>,
    /// Results.
    pub output: Output<'a>,
}

/// Blocks of 32 channels of a quantised row.
pub fn num_blocks(num_channels: u32) -> u32 {
    num_channels.div_ceil(32)
}

const MAX_AXES: usize = 4;
/// Results of one invocation of a product along an axis.
const TILE: u32 = 8;
const BLOCK: u32 = 32;

/// Same layout as `Params` in `transform_rows.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
struct Params {
    num_rows: u32,
    num_channels: u32,
    grid_x: u32,
    eps: f32,
    gain: f32,
    qmax: f32,
    clip: f32,
    group_blocks: u32,
    butterfly_steps: u32,
    num_stages: u32,
    n2: u32,
    rows_per_round: u32,
    stages: [[u32; 4]; MAX_AXES],
}

const FILE: &str = "transform/transform_rows.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "transform_rows",
    bindings: &[
        read("x"),
        read("w"),
        read("b"),
        read("input_scale"),
        read("table"),
        read("p2"),
        read_write("y"),
        read_write("y_scales"),
    ],
    params_bytes: size_of::<Params>(),
    twin: reference::twin,
};

/// Registry entry.
pub const KERNEL: Kernel = Kernel {
    spec: &SPEC,
    choices: cases::choices,
    cases: cases::cases,
    benches: cases::benches,
    cases_of: None,
};

/// A product along one axis: the order of the matrix, the distance of its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axis {
    order: u32,
    stride: u32,
}

/// What [`Mix`] asks for, without its buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mixing {
    None,
    Permute,
    /// Butterflies over runs of `fast` channels, products with ±1 along the axes.
    Hadamard {
        fast: u32,
        axes: Vec<Axis>,
        block: u32,
        transposed: bool,
    },
    Kronecker {
        n1: u32,
        n2: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NormKind {
    None,
    Rms,
    Layer { bias: bool },
}

/// Where a row lies while it is mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nowhere: it is only read.
    Direct,
    Workgroup,
    Output,
}

/// What decides about the pipeline.
#[derive(Clone, Debug)]
struct Pass {
    num_rows: u32,
    num_channels: u32,
    norm: NormKind,
    eps: f32,
    scale: bool,
    mixing: Mixing,
    activation: QuantActivation,
}

impl Mixing {
    fn hadamard(num_channels: u32, h: Hadamard) -> Result<Self, KernelError> {
        let bad = |field, got: u32, must_be| {
            Err(KernelError::BadParam { kernel: SPEC.name, field, got: got.into(), must_be })
        };
        if h.stride == 0 || !num_channels.is_multiple_of(h.stride) {
            return bad("stride of a Hadamard transform", h.stride, "a divisor of the number of channels");
        }
        let block = if h.block == 0 { num_channels / h.stride } else { h.block };
        if !(num_channels / h.stride).is_multiple_of(block) {
            return bad("block of a Hadamard transform", block, "a divisor of the number of channels");
        }
        let Some(HadamardPlan { factors, pow2 }) = hadamard::plan(block) else {
            let must_be = "a size with a known Hadamard matrix (a power of two, 12, 20, 28 .. times one)";
            return bad("size of a Hadamard transform", block, must_be);
        };
        let (fast, dense) = if h.stride == 1 { (pow2, 1) } else { (1, pow2) };
        let mut stride = block * h.stride;
        let mut axes = Vec::new();
        for order in factors.into_iter().chain([dense]).filter(|&order| order > 1) {
            stride /= order;
            axes.push(Axis { order, stride });
        }
        if axes.iter().any(|a| a.order > MAX_ORDER) {
            return bad("number of heads", block, "at most 1024");
        }
        Ok(Self::Hadamard { fast, axes, block, transposed: h.transposed })
    }

    /// Products along axes in channels, in the order of `Params::stages`.
    fn axes(&self) -> Vec<Axis> {
        match self {
            Self::None | Self::Permute => Vec::new(),
            Self::Hadamard { axes, .. } => axes.clone(),
            Self::Kronecker { n1, n2 } => {
                vec![Axis { order: *n1, stride: *n2 }, Axis { order: *n2, stride: 1 }]
            }
        }
    }

    fn can_vec4(&self, num_channels: u32, most_invocations: u32) -> bool {
        num_channels.is_multiple_of(4)
            && match self {
                Self::None => true,
                Self::Permute => false,
                Self::Hadamard { fast, axes, .. } => {
                    (*fast == 1 || fast.is_multiple_of(4)) && axes.iter().all(|a| a.stride.is_multiple_of(4))
                }
                Self::Kronecker { n2, .. } => n2.is_multiple_of(4) && n2 / 4 <= most_invocations,
            }
    }

    /// Invocations without which a product cannot be done.
    fn least_invocations(&self, vec4: bool) -> u32 {
        let tiles = |order: u32| order.div_ceil(TILE);
        match self {
            Self::None | Self::Permute => 1,
            Self::Hadamard { axes, .. } => axes.iter().map(|a| tiles(a.order)).max().unwrap_or(1),
            Self::Kronecker { n1, n2 } => tiles(*n1).max(if vec4 { n2 / 4 } else { tiles(*n2) }),
        }
    }

    /// The table that the shader reads; empty if it needs none of its own.
    fn table(&self) -> Vec<u32> {
        let Self::Hadamard { axes, transposed, .. } = self else { return Vec::new() };
        axes.iter().flat_map(|a| signs(a.order, *transposed)).collect()
    }
}

/// Largest order of a product: a workgroup has an invocation for each tile of it.
const MAX_ORDER: u32 = 1024;

/// A word for each tile of 8 results and each input: bit t is set where result t takes the input with a minus.
fn signs(order: u32, transposed: bool) -> Vec<u32> {
    let Some(h) = hadamard::matrix(order) else { return Vec::new() };
    let order = order as usize;
    let mut words = Vec::with_capacity(order * order.div_ceil(TILE as usize));
    for tile in 0..order.div_ceil(TILE as usize) {
        for from in 0..order {
            let mut word = 0;
            for t in 0..TILE as usize {
                let to = tile * TILE as usize + t;
                let at = if transposed { from * order + to } else { to * order + from };
                if to < order && h[at] < 0 {
                    word |= 1 << t;
                }
            }
            words.push(word);
        }
    }
    words
}

impl Pass {
    fn quantized(&self) -> bool {
        self.activation != QuantActivation::Float
    }

    /// The part of the parameters that depends on the pipeline is filled here as well.
    fn params(&self, grid_x: u32, vec4: bool, wg: u32) -> Params {
        let vec = if vec4 { 4 } else { 1 };
        let mut p = Params {
            num_rows: self.num_rows,
            num_channels: self.num_channels,
            grid_x,
            eps: self.eps,
            gain: 1.0,
            qmax: 1.0,
            clip: 1.0,
            ..Params::default()
        };
        if let QuantActivation::Int { bits, group, clip } = self.activation {
            p.qmax = ((1u32 << (bits - 1)) - 1) as f32;
            p.clip = clip;
            p.group_blocks = if group == Format::ROW { 0 } else { group / BLOCK };
        }
        let mut place = 0;
        for (stage, axis) in p.stages.iter_mut().zip(self.mixing.axes()) {
            let tiles = axis.order.div_ceil(TILE);
            *stage = [axis.order, (axis.stride / vec).max(1), place, (wg / tiles).max(1)];
            place += tiles * axis.order;
        }
        match &self.mixing {
            Mixing::None | Mixing::Permute => {}
            Mixing::Hadamard { fast, axes, block, .. } => {
                p.gain = (1.0 / f64::from(*block).sqrt()) as f32;
                p.butterfly_steps = (fast / vec.min(*fast)).ilog2();
                p.num_stages = axes.len() as u32;
            }
            Mixing::Kronecker { n2, .. } => {
                p.stages[0][2] = 0;
                p.stages[1][2] = 1; // P2 instead of the table
                p.num_stages = 1;
                p.n2 = *n2;
                p.rows_per_round = TILE * (wg / (n2 / vec)).max(1);
            }
        }
        p
    }

    fn choice(&self, place: Place, vec4: bool, subgroup: bool, wg: u32) -> Choice {
        let (norm, bias) = match self.norm {
            NormKind::None => (0, false),
            NormKind::Rms => (1, false),
            NormKind::Layer { bias } => (2, bias),
        };
        let mut s = Selection::new().set("NORM", norm).set("BIAS", bias).set("SCALE", self.scale);
        if vec4 {
            s = s.part("channels", "transform/channels4.wgsl");
        }
        match &self.mixing {
            Mixing::None => {}
            Mixing::Permute => s = s.part("mix_none", "transform/mix_permute.wgsl"),
            Mixing::Hadamard { fast, .. } => {
                s = s.part("mix_none", "transform/mix_hadamard.wgsl");
                if vec4 {
                    s = s.set("WITHIN", *fast > 1);
                }
            }
            Mixing::Kronecker { .. } => {
                s = s.part("mix_none", "transform/mix_kronecker.wgsl");
                if vec4 {
                    s = s.part("rows", "transform/rows4.wgsl");
                }
            }
        }
        if self.quantized() {
            s = s.part("write_f32", "transform/write_codes.wgsl").set("CODES", true);
        }
        let mut row_bytes = 0;
        match place {
            Place::Direct => {}
            Place::Output => s = s.part("row_direct", "transform/row_output.wgsl"),
            Place::Workgroup => {
                let len = padded_row(self.num_channels, vec4);
                row_bytes = row_bytes_of(self.num_channels, vec4);
                s = s.part("row_direct", "transform/row_workgroup.wgsl").set("ROW", len);
            }
        }
        let choice = rows::reducing(FILE, wg, vec4, subgroup, s);
        Choice { workgroup_bytes: choice.workgroup_bytes + row_bytes, ..choice }
    }
}

/// Elements of a row in workgroup memory.
fn padded_row(num_channels: u32, vec4: bool) -> u32 {
    let (len, pad) = if vec4 { (num_channels / 4, 8) } else { (num_channels, 32) };
    len + len.div_ceil(pad)
}

fn row_bytes_of(num_channels: u32, vec4: bool) -> u32 {
    padded_row(num_channels, vec4).saturating_mul(if vec4 { 16 } else { 4 })
}

/// Width, reductions, workgroup size and place of the row, of a pass that may leave the row in y or not.
fn select(caps: &Caps, pass: &Pass, in_output: bool) -> Result<(Choice, bool), KernelError> {
    let n = pass.num_channels;
    let allowed = caps.invocations.min(256);
    let (vec4, subgroup) = rows::pick(caps, SPEC.name, pass.mixing.can_vec4(n, allowed), true);
    let least = pass.mixing.least_invocations(vec4);
    if least > allowed {
        return Err(KernelError::OverLimit {
            kernel: SPEC.name,
            what: "number of invocations for matrices of this order",
            got: least.into(),
            limit: allowed.into(),
        });
    }
    let wg = rows::row_wg(caps, if vec4 { n / 4 } else { n }).max(least.next_power_of_two());
    let place = match pass.mixing {
        Mixing::None | Mixing::Permute => Place::Direct,
        _ if in_output => Place::Output,
        _ => Place::Workgroup,
    };
    Ok((pass.choice(place, vec4, subgroup, wg), vec4))
}

/// Whether rows that are mixed fit the device's workgroup memory (beside what reductions need).
fn row_fits(caps: &Caps, pass: &Pass) -> Result<bool, KernelError> {
    Ok(select(caps, pass, false)?.0.workgroup_bytes <= caps.workgroup_bytes)
}

fn checked(
    kernel: &'static str,
    norm: NormKind,
    eps: f32,
    scale: bool,
    mixing: Mixing,
    activation: QuantActivation,
    [num_rows, num_channels]: [u32; 2],
) -> Result<Pass, KernelError> {
    rows::positive(kernel, "num_channels", num_channels)?;
    rows::elements(kernel, num_rows, num_channels.checked_next_multiple_of(BLOCK).unwrap_or(u32::MAX))?;
    if let QuantActivation::Int { bits, group, clip } = activation {
        let bad =
            |field, got: u32, must_be| Err(KernelError::BadParam { kernel, field, got: got.into(), must_be });
        if !(2..=8).contains(&bits) {
            return bad("bits of activations", bits.into(), "2 to 8");
        }
        if group != Format::ROW && (group == 0 || !group.is_multiple_of(BLOCK)) {
            return bad("channels with one scale", group, "a multiple of 32, or the whole row");
        }
        if !(clip > 0.0 && clip <= 1.0) {
            return bad("percent of the range that is kept", (clip * 100.0) as u32, "over 0 and up to 100");
        }
    }
    if let Mixing::Kronecker { n1, n2 } = mixing
        && n1.checked_mul(n2) != Some(num_channels)
    {
        let (field, got) = ("n1 · n2 of a Kronecker transform", u64::from(n1) * u64::from(n2));
        return Err(KernelError::BadParam { kernel, field, got, must_be: "the number of channels" });
    }
    Ok(Pass { num_rows, num_channels, norm, eps, scale, mixing, activation })
}

fn mixing(mix: &Mix<'_>, num_channels: u32) -> Result<Mixing, KernelError> {
    Ok(match *mix {
        Mix::None => Mixing::None,
        Mix::Permute { .. } => Mixing::Permute,
        Mix::Hadamard(h) => Mixing::hadamard(num_channels, h)?,
        Mix::Kronecker { n1, n2, .. } => Mixing::Kronecker { n1, n2 },
    })
}

/// Bytes of the scratch buffer that quantised results need: f32 rows, where a row that is mixed does not fit the
/// device's workgroup memory; else 0.
///
/// # Errors
/// A mixing that has no kernel, see [`record`].
pub fn scratch_bytes(
    caps: &Caps,
    num_rows: u32,
    num_channels: u32,
    mix: &Mix<'_>,
    activation: QuantActivation,
) -> Result<u64, KernelError> {
    let mixing = mixing(mix, num_channels)?;
    let shape = [num_rows, num_channels];
    let pass = checked(SPEC.name, NormKind::None, 0.0, false, mixing, activation, shape)?;
    let needed = pass.quantized() && !row_fits(caps, &pass)?;
    Ok(if needed { rows::product([4, num_rows.into(), num_channels.into()]) } else { 0 })
}

/// Appends `y = mix(scale · norm(x))`: one dispatch, or two where results are quantised and a row does not fit
/// workgroup memory.
///
/// # Errors
/// No channels; a Hadamard transform of a size that has no known matrix; factors that do not make the number of
/// channels, or with an order over 8 times the invocations of a workgroup; bits, groups or a clip out of their range; a missing scratch buffer; as
/// [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    num_rows: u32,
    num_channels: u32,
) -> Result<(), KernelError> {
    let (norm, eps, w, b) = match args.norm {
        Norm::None => (NormKind::None, 0.0, None, None),
        Norm::Rms { weight, eps } => (NormKind::Rms, eps, Some(weight), None),
        Norm::Layer { weight, bias, eps } => {
            (NormKind::Layer { bias: bias.is_some() }, eps, Some(weight), bias)
        }
    };
    let mixing = mixing(&args.mix, num_channels)?;
    let (activation, y, y_scales, scratch) = match args.output {
        Output::F32(y) => (QuantActivation::Float, y, None, None),
        Output::Quantized { activation, codes, scales, scratch } => {
            (activation, codes, Some(scales), scratch)
        }
    };
    let shape = [num_rows, num_channels];
    let mut pass = checked(SPEC.name, norm, eps, args.scale.is_some(), mixing, activation, shape)?;
    if y_scales.is_some() && !pass.quantized() {
        let (field, must_be) = ("bits of activations", "2 to 8");
        return Err(KernelError::BadParam { kernel: SPEC.name, field, got: 32, must_be });
    }
    let gpu = rec.gpu().clone();
    let own_table = match &pass.mixing {
        Mixing::Hadamard { axes, transposed, .. } if !axes.is_empty() => {
            let mut key = vec![u32::from(*transposed)];
            key.extend(axes.iter().map(|a| a.order));
            Some(gpu.table(key, || pass.mixing.table())?)
        }
        _ => None,
    };
    let (table, p2) = match args.mix {
        Mix::Permute { index } => (Some(index), None),
        Mix::Kronecker { p1, p2, .. } => (Some(p1), Some(p2)),
        Mix::None | Mix::Hadamard(_) => (own_table.as_ref(), None),
    };
    let x = args.x;
    let (w, b, scale) = (w.unwrap_or(x), b.unwrap_or(x), args.scale.unwrap_or(x));
    let (table, p2) = (table.unwrap_or(x), p2.unwrap_or(x));
    let dummy = gpu.dummy()?;
    let fits = row_fits(rec.caps(), &pass)?;
    if fits || !pass.quantized() {
        let buffers = [x, w, b, scale, table, p2, y, y_scales.unwrap_or(&dummy)];
        return dispatch(rec, &pass, !fits, buffers);
    }
    let scratch = scratch.ok_or(KernelError::BadBuffer {
        kernel: SPEC.name,
        binding: "scratch",
        got: 0,
        want: rows::product([4, num_rows.into(), num_channels.into()]),
    })?;
    pass.activation = QuantActivation::Float;
    dispatch(rec, &pass, true, [x, w, b, scale, table, p2, scratch, &dummy])?;
    let quantize = Pass { norm: NormKind::None, scale: false, mixing: Mixing::None, activation, ..pass };
    dispatch(
        rec,
        &quantize,
        false,
        [scratch, scratch, scratch, scratch, scratch, scratch, y, y_scales.unwrap_or(&dummy)],
    )
}

fn dispatch(
    rec: &mut Recorder,
    pass: &Pass,
    in_output: bool,
    buffers: [&Buffer; 8],
) -> Result<(), KernelError> {
    let (choice, vec4) = select(rec.caps(), pass, in_output)?;
    let grid = rows::row_grid(rec.caps(), pass.num_rows);
    let params = pass.params(grid[0], vec4, choice.invocations);
    rec.dispatch(&SPEC, choice, &params, &buffers, grid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caps::Tier;

    fn place(caps: &Caps, n: u32, activation: QuantActivation) -> (bool, u32) {
        let h = Hadamard { block: 0, stride: 1, transposed: false };
        let mixing = Mixing::hadamard(n, h).expect("a plan");
        let pass = checked("k", NormKind::None, 0.0, false, mixing, activation, [1, n]).expect("a pass");
        let fits = row_fits(caps, &pass).expect("a choice");
        (fits, select(caps, &pass, !fits).expect("a choice").0.invocations)
    }

    #[test]
    fn rows_lie_in_workgroup_memory_where_they_fit() {
        let large = Caps { workgroup_bytes: 32 << 10, ..Caps::baseline() };
        assert_eq!(place(&Caps::baseline(), 2048, QuantActivation::INT8), (true, 256));
        assert_eq!(place(&Caps::baseline(), 4096, QuantActivation::INT8), (false, 256));
        assert_eq!(place(&large, 4096, QuantActivation::INT8), (true, 256));
        assert_eq!(place(&large, 53248, QuantActivation::Float), (false, 256));
        let cpu = Caps { is_cpu: true, ..large }.at_tier(Tier::Cpu);
        assert_eq!(place(&cpu, 4096, QuantActivation::INT8), (true, 16));
        assert_eq!(place(&cpu, 6400, QuantActivation::INT8), (true, 32)); // order 200: 25 tiles
    }

    #[test]
    fn what_cannot_be_mixed_is_an_error() {
        let h = |block, stride| Hadamard { block, stride, transposed: false };
        for (n, bad) in [(30, h(0, 1)), (64, h(24, 1)), (64, h(0, 5)), (64, h(0, 0)), (0, h(0, 1))] {
            assert!(Mixing::hadamard(n, bad).is_err(), "{n} {bad:?}");
        }
        let pass = |n1, n2, n| {
            checked(
                "k",
                NormKind::None,
                0.0,
                false,
                Mixing::Kronecker { n1, n2 },
                QuantActivation::Float,
                [1, n],
            )
        };
        assert!(pass(8, 8, 63).is_err());
        assert!(pass(65536, 65536, 0).is_err());
        let wide = pass(1, 4096, 4096).expect("a shape");
        assert!(matches!(select(&Caps::baseline(), &wide, true), Err(KernelError::OverLimit { .. })));
        let int = |bits, group, clip| {
            let activation = QuantActivation::Int { bits, group, clip };
            checked("k", NormKind::None, 0.0, false, Mixing::None, activation, [1, 64])
        };
        assert!(int(8, 32, 1.0).is_ok());
        for bad in [int(9, 32, 1.0), int(1, 32, 1.0), int(8, 24, 1.0), int(8, 32, f32::NAN)] {
            assert!(bad.is_err());
        }
    }
}

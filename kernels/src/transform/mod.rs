//! `y = mix(scale · norm(x))` row by row, in f32, as integers with their scales or as the numbers that these stand for:
//! what stands between activations and a quantised product.
//!
//! Quantised rows are written as integer products read them, `B = ceil(K / 32)` blocks each: `x_codes [M, B, 2]` of 16
//! bytes, the signed codes of 32 channels in their order (0 beyond K), and `x_scales [M, B]` of 8 bytes, the block's
//! scale in f32 and the sums of its first and of its last 16 codes as two 16-bit integers, the first one low.

mod cases;
mod mixing;
mod pass;
mod reference;

use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::error::KernelError;
use crate::fused::Norm;
use crate::quant::QuantActivation;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use mixing::Mixing;
use pass::{NormKind, Params, Pass, checked, row_fits, select};

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
    /// `x Hᵀ / sqrt(n)`, as [`HadamardPlan`](crate::quant::HadamardPlan) defines it.
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
    /// f32 `[M, n]`: the numbers `scale · q` that the integers of [`Output::Quantized`] stand for.
    FakeQuantized {
        /// Bits, channels of a scale, clip.
        activation: QuantActivation,
        /// Results.
        y: &'a Buffer,
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
    tuning: None,
    cost: None,
};

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
    let mixing = Mixing::of(mix, num_channels)?;
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
    let mixing = Mixing::of(&args.mix, num_channels)?;
    let (activation, y, y_scales, scratch) = match args.output {
        Output::F32(y) => (QuantActivation::Float, y, None, None),
        Output::Quantized { activation, codes, scales, scratch } => {
            (activation, codes, Some(scales), scratch)
        }
        Output::FakeQuantized { activation, y, scratch } => (activation, y, None, scratch),
    };
    let shape = [num_rows, num_channels];
    let mut pass = checked(SPEC.name, norm, eps, args.scale.is_some(), mixing, activation, shape)?;
    pass.fake = matches!(args.output, Output::FakeQuantized { .. });
    if !matches!(args.output, Output::F32(_)) && !pass.quantized() {
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

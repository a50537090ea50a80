//! Gated activations: the product of an activated gate and an up projection.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use super::Activation;
use crate::activation;
use crate::buffer::Buffer;
use crate::case::{Regime, TestCase, seeded};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `glu.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Elements T·F of the result.
    pub len: u32,
    /// Channels F of the result.
    pub num_channels: u32,
    /// Slope of the clamped kind.
    pub alpha: f32,
    /// Bound of the clamped kind.
    pub limit: f32,
    /// Workgroups along x.
    pub grid_x: u32,
}

/// What happens to gate and up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Glu {
    /// `act(gate) · up`
    Gated(Activation),
    /// `(clamp(up, -limit, limit) + 1) · g · sigmoid(alpha · g)`, `g = min(gate, limit)` (gpt-oss).
    ClampedSwiglu {
        /// Slope of the sigmoid.
        alpha: f32,
        /// Upper bound of the gate, both bounds of up.
        limit: f32,
    },
}

impl From<Activation> for Glu {
    fn from(act: Activation) -> Self {
        Self::Gated(act)
    }
}

impl Glu {
    /// The definition, in f64.
    pub fn eval(self, gate: f64, up: f64) -> f64 {
        match self {
            Self::Gated(act) => act.eval(gate) * up,
            Self::ClampedSwiglu { alpha, limit } => {
                let (alpha, limit) = (f64::from(alpha), f64::from(limit));
                let g = gate.min(limit);
                (up.clamp(-limit, limit) + 1.0) * g * activation::sigmoid(alpha * g)
            }
        }
    }
}

/// Where gate and up lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Two tensors `[T, F]`.
    Separate,
    /// One tensor `[T, 2F]`, rows `[gate | up]`.
    Concat,
    /// One tensor `[T, 2F]`, gate at even, up at odd places.
    Interleaved,
}

/// Buffers, all f32.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Gate, or gate and up.
    pub gate: &'a Buffer,
    /// Up; the same buffer as `gate` where they are one tensor.
    pub up: &'a Buffer,
    /// Output `[T, F]`.
    pub y: &'a Buffer,
}

const FILE: &str = "elementwise/glu.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "glu",
    bindings: &[read("gate"), read("up"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// Appends `y = act(gate) · up`.
///
/// # Errors
/// No channels, a limit that is not positive; as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    num_rows: u32,
    num_channels: u32,
    glu: Glu,
    layout: Layout,
) -> Result<(), KernelError> {
    rows::positive(SPEC.name, "num_channels", num_channels)?;
    let (vec4, _) = rows::pick(rec.caps(), SPEC.name, num_channels.is_multiple_of(4), false);
    let choice = choice(rows::flat_wg(rec.caps()), vec4, glu, layout);
    let len = rows::elements(SPEC.name, num_rows, num_channels)?;
    let groups = (len / if vec4 { 4 } else { 1 }).div_ceil(choice.invocations);
    let grid = rows::row_grid(rec.caps(), groups);
    let params = params(len, num_channels, glu, grid[0]);
    rec.dispatch(&SPEC, choice, &params, &[args.gate, args.up, args.y], grid)
}

fn params(len: u32, num_channels: u32, glu: Glu, grid_x: u32) -> Params {
    let (alpha, limit) = match glu {
        Glu::Gated(_) => (0.0, 0.0),
        Glu::ClampedSwiglu { alpha, limit } => (alpha, limit.abs()),
    };
    Params { len, num_channels, alpha, limit, grid_x }
}

fn choice(wg: u32, vec4: bool, glu: Glu, layout: Layout) -> Choice {
    let selection = match glu {
        Glu::Gated(act) => Selection::new().set("ACT", act.code()),
        Glu::ClampedSwiglu { .. } => Selection::new().set("CLAMPED", true),
    };
    let selection = if vec4 { selection.part("each", "elementwise/each4.wgsl") } else { selection };
    let selection = match layout {
        Layout::Separate => selection,
        Layout::Concat => selection.part("glu_load", CONCAT),
        Layout::Interleaved if vec4 => selection.part("glu_load", "elementwise/glu_load_interleaved4.wgsl"),
        Layout::Interleaved => selection.part("glu_load", "elementwise/glu_load_interleaved.wgsl"),
    };
    rows::streaming(FILE, wg, vec4, selection)
}

const CONCAT: &str = "elementwise/glu_load_concat.wgsl";
const LAYOUTS: [Layout; 3] = [Layout::Separate, Layout::Concat, Layout::Interleaved];
const CLAMPED: Glu = Glu::ClampedSwiglu { alpha: 1.702, limit: 7.0 };

fn choices() -> Vec<Choice> {
    let mut all = Vec::new();
    for vec4 in [false, true] {
        for layout in LAYOUTS {
            all.push(choice(256, vec4, CLAMPED, layout));
            all.push(choice(128, vec4, CLAMPED, layout));
            all.extend(Activation::ALL.map(|act| choice(256, vec4, act.into(), layout)));
        }
    }
    all
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let glu = if call.selection.get_bool("CLAMPED") {
        Glu::ClampedSwiglu { alpha: p.alpha, limit: p.limit }
    } else {
        Activation::from_code(call.selection.get_u32("ACT").unwrap_or_default()).into()
    };
    let part = call.selection.get_part("glu_load");
    let (gate, up): (Vec<f32>, Vec<f32>) = (call.get(0), call.get(1));
    let mut y: Vec<f32> = call.get(2);
    let f = p.num_channels as usize;
    for (i, y) in y.iter_mut().enumerate().take(p.len as usize) {
        let (g, u) = match part {
            None => (i, i),
            Some(CONCAT) => (i / f * 2 * f + i % f, i / f * 2 * f + f + i % f),
            Some(_) => (2 * i, 2 * i + 1),
        };
        *y = glu.eval(f64::from(gate[g]), f64::from(up[u])) as f32;
    }
    call.put(2, &y);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let case =
        |(name, regime): (&str, Regime), num_rows: u32, num_channels: u32, layout: Layout, glus: &[Glu]| {
            let len = num_rows * num_channels;
            let held = (len * if layout == Layout::Separate { 1 } else { 2 }) as usize;
            let gate: Vec<f32> = seeded(held, 1).iter().map(|v| v * 4.0).collect();
            let up = if layout == Layout::Separate { seeded(held, 2) } else { gate.clone() };
            let mut case =
                TestCase::new(name, regime, super::TOLERANCE).input(&gate).input(&up).output(len as usize);
            for &glu in glus {
                for vec4 in [false, true] {
                    if vec4 && !num_channels.is_multiple_of(4) {
                        continue;
                    }
                    let grid = rows::wrapped_grid((len / if vec4 { 4 } else { 1 }).div_ceil(128), 5);
                    let params = params(len, num_channels, glu, grid[0]);
                    case = case.launch(choice(128, vec4, glu, layout), &params, grid);
                }
            }
            case
        };
    let silu = Glu::Gated(Activation::Silu);
    vec![
        case(("separate", OneTile), 3, 36, Layout::Separate, &[silu, CLAMPED, Activation::GeluTanh.into()]),
        case(("concat", PartialTile), 3, 68, Layout::Concat, &[silu, CLAMPED]),
        case(("interleaved", PartialTile), 3, 68, Layout::Interleaved, &[silu, CLAMPED]),
        case(("many_tiles", ManyTiles), 9, 256, Layout::Separate, &[silu]),
        case(("separate_odd", PartialTile), 5, 67, Layout::Separate, &[silu, CLAMPED]),
        case(("concat_odd", PartialTile), 5, 67, Layout::Concat, &[silu]),
        case(("interleaved_odd", PartialTile), 5, 67, Layout::Interleaved, &[CLAMPED]),
        case(("gpt_oss_20b", Model), 2, 2880, Layout::Interleaved, &[CLAMPED]),
    ]
}

//! The weighted sum of what the experts of each token give.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use crate::buffer::Buffer;
use crate::case::{POISON, Regime, TestCase, Tolerance, hash, seeded};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `combine.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Tokens T.
    pub num_tokens: u32,
    /// Slots of a token K.
    pub num_slots: u32,
    /// Channels N.
    pub num_channels: u32,
    /// Workgroups along x; more continue along y.
    pub grid_x: u32,
    /// Factor of the sum.
    pub alpha: f32,
    /// Slots of other experts than the first so many are left out.
    pub num_experts: u32,
}

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// What the slots give `[T, K, N]`, f32.
    pub o: &'a Buffer,
    /// `[T, K, 2]`: expert, bits of its weight.
    pub routes: &'a Buffer,
    /// Added `[T, N]`.
    pub residual: Option<&'a Buffer>,
    /// Result `[T, N]`.
    pub y: &'a Buffer,
}

const FILE: &str = "moe/combine.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "moe_combine",
    bindings: &[read("o"), read("routes"), read("residual"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// Appends `y[t] = residual[t] + alpha Σ_j weight[t, j] · o[t, j]`, in the order of j. Slots whose expert is none of
/// `num_experts` are left out: those without one ([`NONE`](super::NONE)), and experts without weights
/// ([`NullExperts`](super::NullExperts)).
///
/// # Errors
/// No slots or channels, buffers that are too short, sizes beyond 32 bits, and as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    [num_tokens, num_slots, num_channels]: [u32; 3],
    num_experts: u32,
    alpha: f32,
) -> Result<(), KernelError> {
    rows::positive(SPEC.name, "slots of a token", num_slots)?;
    rows::positive(SPEC.name, "channels", num_channels)?;
    let slots = rows::elements(SPEC.name, num_tokens, num_slots)?;
    rows::elements(SPEC.name, slots, num_channels)?;
    let [t, s, n] = [num_tokens, slots, num_channels].map(u64::from);
    rows::check_sizes(
        SPEC.name,
        [
            ("o", Some(args.o), 4 * s * n),
            ("routes", Some(args.routes), 8 * s),
            ("residual", args.residual, 4 * t * n),
            ("y", Some(args.y), 4 * t * n),
        ],
    )?;
    let (vec4, _) = rows::pick(rec.caps(), SPEC.name, num_channels.is_multiple_of(4), false);
    let choice = choice(rows::flat_wg(rec.caps()), vec4, args.residual.is_some());
    let groups = (num_tokens * (num_channels / if vec4 { 4 } else { 1 })).div_ceil(choice.invocations);
    let grid = rows::row_grid(rec.caps(), groups);
    let params = Params { num_tokens, num_slots, num_channels, grid_x: grid[0], alpha, num_experts };
    let none = rec.gpu().dummy()?;
    rec.dispatch(&SPEC, choice, &params, &[args.o, args.routes, args.residual.unwrap_or(&none), args.y], grid)
}

fn choice(wg: u32, vec4: bool, residual: bool) -> Choice {
    rows::streaming(FILE, wg, vec4, Selection::new().set("HAS_RESIDUAL", residual))
}

fn choices() -> Vec<Choice> {
    let mut all = Vec::new();
    for wg in [128, 256] {
        for vec4 in [false, true] {
            all.extend([choice(wg, vec4, false), choice(wg, vec4, true)]);
        }
    }
    all
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let n = p.num_channels as usize;
    let (o, routes): (Vec<f32>, Vec<[u32; 2]>) = (call.get(0), call.get(1));
    let residual = call.selection.get_bool("HAS_RESIDUAL").then(|| call.get::<f32>(2));
    let mut y: Vec<f32> = call.get(3);
    for i in 0..p.num_tokens as usize * n {
        let first = i / n * p.num_slots as usize;
        let slots = (first..first + p.num_slots as usize).filter(|&slot| routes[slot][0] < p.num_experts);
        let term = |slot: usize| f64::from(f32::from_bits(routes[slot][1])) * f64::from(o[slot * n + i % n]);
        let sum: f64 = slots.map(term).sum();
        y[i] = (residual.as_ref().map_or(0.0, |r| f64::from(r[i])) + f64::from(p.alpha) * sum) as f32;
    }
    call.put(3, &y);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    const EXPERTS: u32 = 56;
    let case = |(name, regime): (&str, Regime), [t, k, n]: [u32; 3], residual: bool| {
        let mut o = seeded((t * k * n) as usize, 1);
        let route = |slot: u32| {
            let expert = if slot % 5 == 3 { super::NONE } else { hash(slot) % (EXPERTS + 8) };
            [expert, ((slot % 7) as f32 / 8.0).to_bits()]
        };
        let routes: Vec<[u32; 2]> = (0..t * k).map(route).collect();
        for (row, route) in o.chunks_exact_mut(n as usize).zip(&routes) {
            if route[0] >= EXPERTS {
                row.fill(POISON);
            }
        }
        let mut case = TestCase::new(name, regime, Tolerance::f32_sum(k as usize + 1, 50.0))
            .input(&o)
            .input(&routes)
            .input(&seeded((t * n) as usize, 2))
            .output((t * n) as usize);
        for (wg, vec4) in [(128, false), (128, true), (256, true)] {
            if vec4 && !n.is_multiple_of(4) {
                continue;
            }
            let groups = (t * n / if vec4 { 4 } else { 1 }).div_ceil(wg);
            let grid = rows::wrapped_grid(groups, 3);
            let (grid_x, num_experts) = (grid[0], EXPERTS);
            let params =
                Params { num_tokens: t, num_slots: k, num_channels: n, grid_x, alpha: -0.7, num_experts };
            case = case.launch(choice(wg, vec4, residual), &params, grid);
        }
        case
    };
    vec![
        case(("one", OneTile), [1, 2, 36], false),
        case(("odd", PartialTile), [5, 3, 33], true),
        case(("partial", PartialTile), [3, 8, 132], true),
        case(("many", ManyTiles), [9, 2, 300], false),
        case(("gpt_oss", Model), [3, 4, 2880], true),
    ]
}

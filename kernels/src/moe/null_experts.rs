//! The weighted sum of what experts without weights give.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use super::{MAX_SLOTS, NONE, NullExperts, array_bytes};
use crate::activation::sigmoid;
use crate::buffer::Buffer;
use crate::case::{POISON, Regime, TestCase, Tolerance, hash, seeded};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `null_experts.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Tokens T.
    pub num_tokens: u32,
    /// Slots of a token K.
    pub num_slots: u32,
    /// Channels D.
    pub num_channels: u32,
    /// Workgroups along x; more continue along y.
    pub grid_x: u32,
    /// First constant expert.
    pub first_constant: u32,
    /// First expert that copies.
    pub first_copy: u32,
    /// The one behind the last that copies.
    pub end_copy: u32,
    /// Factor of the sum.
    pub alpha: f32,
}

/// Buffers, f32 where not said.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// `[T, D]`
    pub x: &'a Buffer,
    /// `[T, K, 2]`: expert, bits of its weight.
    pub routes: &'a Buffer,
    /// W_c `[C, 2, D]` and v `[C, D]` of constant experts.
    pub constant: Option<[&'a Buffer; 2]>,
    /// Added `[T, D]`.
    pub residual: Option<&'a Buffer>,
    /// Result `[T, D]`.
    pub y: &'a Buffer,
}

const FILE: &str = "moe/null_experts.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "moe_null_experts",
    bindings: &[read("x"), read("routes"), read("mix"), read("constants"), read("residual"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// Appends `y[t] = residual[t] + alpha Σ_j weight[t, j] · e_j(x[t])` over slots whose experts are `null`: those from `experts` on,
/// in the order of [`NullExperts`]. Other slots, zero experts among them, add nothing.
///
/// # Errors
/// No slots or channels, more than [`MAX_SLOTS`] slots, ids beyond 32 bits, buffers that are missing or too short, sizes beyond
/// 32 bits, and as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    [num_tokens, num_slots, num_channels]: [u32; 3],
    (experts, null): (u32, NullExperts),
    alpha: f32,
) -> Result<(), KernelError> {
    rows::positive(SPEC.name, "slots of a token", num_slots)?;
    rows::positive(SPEC.name, "channels", num_channels)?;
    rows::elements(SPEC.name, num_tokens, num_channels)?;
    rows::elements(SPEC.name, 2 * null.constant.min(1 << 30), num_channels)?;
    let bad =
        |field, got: u64, must_be| Err(KernelError::BadParam { kernel: SPEC.name, field, got, must_be });
    if num_slots > MAX_SLOTS {
        return bad("slots of a token", num_slots.into(), "at most 64");
    }
    let all = [experts, null.constant, null.copy].map(u64::from).iter().sum::<u64>();
    if all >= NONE.into() {
        return bad("experts", all, "below 2^32 - 1");
    }
    let [t, s, d, c] = [num_tokens, num_slots, num_channels, null.constant].map(u64::from);
    let none = rec.gpu().dummy()?;
    let [mix, constants] = args.constant.unwrap_or([&none; 2]);
    rows::check_sizes(
        SPEC.name,
        [
            ("x", Some(args.x), 4 * t * d),
            ("routes", Some(args.routes), rows::product([8, t, s])),
            ("mix", (c > 0).then_some(mix), rows::product([8, c, d])),
            ("constants", (c > 0).then_some(constants), rows::product([4, c, d])),
            ("residual", args.residual, 4 * t * d),
            ("y", Some(args.y), 4 * t * d),
        ],
    )?;
    let (vec4, subgroup) = rows::pick(rec.caps(), SPEC.name, num_channels.is_multiple_of(4), true);
    let wg = rows::row_wg(rec.caps(), num_channels / if vec4 { 4 } else { 1 });
    let choice = choice(wg, (vec4, subgroup), [null.constant > 0, args.residual.is_some()]);
    let grid = rows::row_grid(rec.caps(), num_tokens);
    let params = params([num_tokens, num_slots, num_channels], grid[0], (experts, null), alpha);
    let residual = args.residual.unwrap_or(&none);
    rec.dispatch(&SPEC, choice, &params, &[args.x, args.routes, mix, constants, residual, args.y], grid)
}

fn params(
    [num_tokens, num_slots, num_channels]: [u32; 3],
    grid_x: u32,
    (first_constant, null): (u32, NullExperts),
    alpha: f32,
) -> Params {
    let first_copy = first_constant + null.constant;
    let end_copy = first_copy + null.copy;
    Params { num_tokens, num_slots, num_channels, grid_x, first_constant, first_copy, end_copy, alpha }
}

fn choice(wg: u32, (vec4, subgroup): (bool, bool), [constant, residual]: [bool; 2]) -> Choice {
    let selection = Selection::new().set("HAS_CONSTANT", constant).set("HAS_RESIDUAL", residual);
    let choice = rows::reducing(FILE, wg, vec4, subgroup, selection);
    Choice { workgroup_bytes: choice.workgroup_bytes.next_multiple_of(16) + array_bytes(MAX_SLOTS), ..choice }
}

fn choices() -> Vec<Choice> {
    let mut all = Vec::new();
    for wg in [16, 64, 256] {
        for width in rows::widths() {
            for options in [[false, false], [true, false], [false, true], [true, true]] {
                all.push(choice(wg, width, options));
            }
        }
    }
    all
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let d = p.num_channels as usize;
    let (x, routes): (Vec<f32>, Vec<[u32; 2]>) = (call.get(0), call.get(1));
    let option = |name: &str, i: usize| call.selection.get_bool(name).then(|| call.get::<f32>(i));
    let (mix, constants) = (option("HAS_CONSTANT", 2), option("HAS_CONSTANT", 3));
    let residual = option("HAS_RESIDUAL", 4);
    let mut y: Vec<f32> = call.get(5);
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum::<f64>();
    for token in 0..p.num_tokens as usize {
        let x = &x[token * d..(token + 1) * d];
        let mut sum = vec![0.0; d];
        for &[expert, bits] in &routes[token * p.num_slots as usize..][..p.num_slots as usize] {
            let weight = f64::from(f32::from_bits(bits));
            if (p.first_copy..p.end_copy).contains(&expert) {
                sum.iter_mut().zip(x).for_each(|(s, &x)| *s += weight * f64::from(x));
            }
            let (Some(mix), Some(constants)) = (&mix, &constants) else { continue };
            if (p.first_constant..p.first_copy).contains(&expert) {
                let c = (expert - p.first_constant) as usize;
                let [l1, l2] = [2 * c, 2 * c + 1].map(|row| dot(x, &mix[row * d..(row + 1) * d]));
                let [a1, a2] = [sigmoid(l1 - l2), sigmoid(l2 - l1)];
                for ((s, &x), &v) in sum.iter_mut().zip(x).zip(&constants[c * d..]) {
                    *s += weight * (a1 * f64::from(x) + a2 * f64::from(v));
                }
            }
        }
        for (i, sum) in sum.into_iter().enumerate() {
            let residual = residual.as_ref().map_or(0.0, |r| f64::from(r[token * d + i]));
            y[token * d + i] = (residual + f64::from(p.alpha) * sum) as f32;
        }
    }
    call.put(5, &y);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    // Experts with weights 0..5, then constant ones, then 2 that copy, then one of zero.
    let case = |(name, regime): (&str, Regime), [t, k, d]: [u32; 3], constant: u32, wgs: &[u32]| {
        let null = NullExperts { constant, copy: 2 };
        let route = |slot: u32| {
            let none = slot % 7 == 5;
            let expert = if none { NONE } else { hash(slot) % (5 + constant + 3) };
            [expert, ((slot % 9) as f32 / 8.0 - 0.25).to_bits()]
        };
        let routes: Vec<[u32; 2]> = (0..t * k).map(route).collect();
        let mut x = seeded((t * d) as usize, 1);
        // What no expert copies is not read.
        for (x, routes) in x.chunks_exact_mut(d as usize).zip(routes.chunks_exact(k as usize)) {
            if routes.iter().all(|&[e, _]| !(5..5 + constant + 2).contains(&e)) {
                x.fill(POISON);
            }
        }
        let small = |len: u32, seed| -> Vec<f32> {
            let scale = 1.0 / (d as f32).sqrt();
            seeded(len as usize, seed).into_iter().map(|v| v.clamp(-2.0, 2.0) * scale).collect()
        };
        let mut case = TestCase::new(name, regime, Tolerance::f32_sum(d.max(100) as usize, 4.0))
            .input(&x)
            .input(&routes)
            .input(&small((2 * constant).max(1) * d, 2))
            .input(&seeded((constant.max(1) * d) as usize, 3))
            .input(&seeded((t * d) as usize, 4))
            .output((t * d) as usize);
        for &wg in wgs {
            for (vec4, subgroup) in rows::widths().filter(|&(vec4, _)| !vec4 || d.is_multiple_of(4)) {
                let grid = rows::wrapped_grid(t, 3);
                let params = params([t, k, d], grid[0], (5, null), -0.7);
                let options = [constant > 0, t > 1];
                case = case.launch(choice(wg, (vec4, subgroup), options), &params, grid);
            }
        }
        case
    };
    vec![
        case(("one", OneTile), [1, 2, 36], 2, &[16, 64]),
        case(("odd", PartialTile), [5, 3, 33], 1, &[16]),
        case(("partial", PartialTile), [4, 3, 68], 1, &[16]),
        case(("copies", ManyTiles), [9, 12, 132], 0, &[16]),
        case(("longcat", Model), [3, 12, 1536], 0, &[256]),
        case(("moe_plus_plus", Model), [4, 2, 1024], 2, &[16, 256]),
    ]
}

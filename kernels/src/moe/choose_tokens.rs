//! Experts that choose their tokens.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use super::{MAX_EXPERTS, NONE, reference};
use crate::buffer::Buffer;
use crate::case::{Element, Regime, TestCase, Tolerance, hash};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `choose_tokens.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Tokens T.
    pub num_tokens: u32,
    /// Experts E.
    pub num_experts: u32,
    /// Tokens of an expert C.
    pub capacity: u32,
    /// Workgroups along x; more continue along y.
    pub grid_x: u32,
    /// Factor of all weights.
    pub scale: f32,
}

const FILE: &str = "moe/choose_tokens.wgsl";
/// Tokens that are counted in f32.
pub const MAX_TOKENS: u32 = (1 << 24) - 1;

const SPEC: KernelSpec = KernelSpec {
    name: "moe_choose_tokens",
    bindings: &[read("scores"), read_write("routes")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// Appends the choice of each expert: the `capacity` tokens with its largest scores, the earlier token first among equals. NaN
/// is not chosen. Scores `[E, T]`; routes `[T, E, 2]`: the expert and the bits of `scale · score`, or
/// [`NONE`] and 0 where it does not take the token.
///
/// # Errors
/// No experts or too many, 2^24 tokens or more, no capacity or one beyond the tokens, buffers that are too short, sizes beyond 32
/// bits, and as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    scores: &Buffer,
    routes: &Buffer,
    [num_tokens, num_experts, capacity]: [u32; 3],
    scale: f32,
) -> Result<(), KernelError> {
    let bad = |field, got: u32, must_be| {
        Err(KernelError::BadParam { kernel: SPEC.name, field, got: got.into(), must_be })
    };
    if num_experts == 0 || num_experts > MAX_EXPERTS {
        return bad("experts", num_experts, "1 to 1024");
    }
    if num_tokens > MAX_TOKENS {
        return bad("tokens", num_tokens, "below 2^24");
    }
    if capacity == 0 || capacity > num_tokens {
        return bad("tokens of an expert", capacity, "1 to the number of tokens");
    }
    let len = u64::from(rows::elements(SPEC.name, num_tokens, num_experts)?);
    rows::check_sizes(SPEC.name, [("scores", Some(scores), 4 * len), ("routes", Some(routes), 8 * len)])?;
    let (_, subgroup) = rows::pick(rec.caps(), SPEC.name, false, true);
    let choice = choice(rows::row_wg(rec.caps(), num_tokens), subgroup);
    let grid = rows::row_grid(rec.caps(), num_experts);
    let params = Params { num_tokens, num_experts, capacity, grid_x: grid[0], scale };
    rec.dispatch(&SPEC, choice, &params, &[scores, routes], grid)
}

fn choice(wg: u32, subgroup: bool) -> Choice {
    rows::reducing(FILE, wg, false, subgroup, Selection::new())
}

fn choices() -> Vec<Choice> {
    [16, 64, 256].into_iter().flat_map(|wg| [false, true].map(|subgroup| choice(wg, subgroup))).collect()
}

/// The definition: a stable sort.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let (t, e) = (p.num_tokens as usize, p.num_experts as usize);
    let scores: Vec<f32> = call.get(0);
    let mut routes: Vec<[u32; 2]> = call.get(1);
    for (expert, scores) in scores.chunks_exact(t).take(e).enumerate() {
        let mut order: Vec<usize> = (0..t).filter(|&t| !scores[t].is_nan()).collect();
        order.sort_by_key(|&t| std::cmp::Reverse(reference::order_key(scores[t])));
        let taken = &order[..order.len().min(p.capacity as usize)];
        for token in 0..t {
            routes[token * e + expert] = [NONE, 0];
        }
        for &token in taken {
            let weight = f64::from(scores[token]) * f64::from(p.scale);
            routes[token * e + expert] = [expert as u32, (weight as f32).to_bits()];
        }
    }
    call.put(1, &routes);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    // `values`: how many scores there are, so that few make many ties.
    let case = |(name, regime): (&str, Regime), [t, e, capacity]: [u32; 3], values: u32, wgs: &[u32]| {
        let score = |i: u32| match hash(i) % 23 {
            0 => f32::NAN,
            1 => -0.0,
            2 => f32::NEG_INFINITY,
            3 => 0.0,
            _ => (hash(i + 9) % values) as f32 / 8.0 - 2.0,
        };
        let mut scores: Vec<f32> = (0..t * e).map(score).collect();
        scores[(t * (e - 1)) as usize..].iter_mut().skip(1).step_by(2).for_each(|s| *s = f32::NAN);
        let mut case = TestCase::new(name, regime, Tolerance { abs: 0.0, rel: 2e-7 })
            .input(&scores)
            .in_out(&vec![[0xdead_beefu32; 2]; (t * e) as usize], Element::Routes);
        for &wg in wgs {
            for subgroup in [false, true] {
                let grid = rows::wrapped_grid(e, 3);
                let params = Params { num_tokens: t, num_experts: e, capacity, grid_x: grid[0], scale: 0.1 };
                case = case.launch(choice(wg, subgroup), &params, grid);
            }
        }
        case
    };
    vec![
        case(("one", OneTile), [1, 1, 1], 9, &[16]),
        case(("ties", PartialTile), [37, 5, 9], 3, &[16, 64]),
        case(("all", OneTile), [12, 2, 12], 100, &[16]),
        case(("many", ManyTiles), [300, 4, 150], 40, &[16, 256]),
        case(("expert_choice", Model), [1024, 8, 256], 1000, &[256]),
    ]
}

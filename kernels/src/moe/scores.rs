//! Scores of all tokens by experts.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use super::{Score, reference, token_grid};
use crate::buffer::Buffer;
use crate::case::{Regime, TestCase, Tolerance, seeded};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `scores.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Tokens T.
    pub num_tokens: u32,
    /// Experts E.
    pub num_experts: u32,
    /// Workgroups along x; more continue along y.
    pub grid_x: u32,
}

const FILE: &str = "moe/scores.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "moe_scores",
    bindings: &[read("logits"), read_write("scores")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// Appends `scores[e, t] = score(logits[t, e])`: logits `[T, E]`, scores `[E, T]`, f32. NaN stays NaN; a softmax is over the
/// experts whose logits are numbers.
///
/// # Errors
/// No experts, buffers that are too short, sizes beyond 32 bits, and as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    logits: &Buffer,
    scores: &Buffer,
    [num_tokens, num_experts]: [u32; 2],
    score: Score,
) -> Result<(), KernelError> {
    rows::positive(SPEC.name, "experts", num_experts)?;
    let want = 4 * u64::from(rows::elements(SPEC.name, num_tokens, num_experts)?);
    rows::check_sizes(SPEC.name, [("logits", Some(logits), want), ("scores", Some(scores), want)])?;
    let grid = token_grid(rec.caps(), num_tokens, WG);
    let params = Params { num_tokens, num_experts, grid_x: grid[0] };
    rec.dispatch(&SPEC, choice(score), &params, &[logits, scores], grid)
}

const WG: u32 = 64;
const SCORES: [Score; 4] = [Score::Softmax, Score::Sigmoid, Score::SqrtSoftplus, Score::Logit];

fn choice(score: Score) -> Choice {
    rows::streaming(FILE, WG, false, Selection::new().set("SCORE", score as u32))
}

fn choices() -> Vec<Choice> {
    SCORES.map(choice).into()
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let score = SCORES[call.selection.get_u32("SCORE").unwrap_or(0).min(3) as usize];
    let (t, e) = (p.num_tokens as usize, p.num_experts as usize);
    let logits: Vec<f32> = call.get(0);
    let mut scores: Vec<f32> = call.get(1);
    for (token, logits) in logits.chunks_exact(e).take(t).enumerate() {
        for (expert, (s, l)) in reference::scores(score, logits).into_iter().zip(logits).enumerate() {
            scores[expert * t + token] = if l.is_nan() { f32::NAN } else { s as f32 };
        }
    }
    call.put(1, &scores);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let case = |(name, regime): (&str, Regime), [t, e]: [u32; 2], score: Score| {
        let mut logits = seeded((t * e) as usize, 1);
        logits.iter_mut().step_by(11).for_each(|l| *l = f32::NEG_INFINITY);
        let grid = rows::wrapped_grid(t.div_ceil(WG), 3);
        let params = Params { num_tokens: t, num_experts: e, grid_x: grid[0] };
        TestCase::new(name, regime, Tolerance { abs: 1e-6, rel: 4e-6 })
            .input(&logits)
            .output((t * e) as usize)
            .launch(choice(score), &params, grid)
    };
    vec![
        case(("one", OneTile), [1, 5], Score::Sigmoid),
        case(("odd", PartialTile), [70, 7], Score::SqrtSoftplus),
        case(("many", ManyTiles), [300, 3], Score::Softmax),
        case(("logits", ManyTiles), [130, 2], Score::Logit),
        case(("expert_choice", Model), [512, 16], Score::Softmax),
    ]
}

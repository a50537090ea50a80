//! From the logits of a token to experts and weights.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use super::array_bytes;
use super::reference::route;
use super::{Choose, Groups, Normalise, Router, Score, Weight};
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{Element, Regime, TestCase, Tolerance, hash};
use crate::choice::{Choice, Data, Requires};
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `route.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Tokens T.
    pub num_tokens: u32,
    /// Experts E.
    pub num_experts: u32,
    /// Experts of a token K.
    pub num_slots: u32,
    /// Groups of experts.
    pub num_groups: u32,
    /// Groups that are kept.
    pub keep_groups: u32,
    /// Workgroups along x; more continue along y.
    pub grid_x: u32,
    /// Of the normalisation.
    pub eps: f32,
    /// Of the sparse mixer.
    pub mixer_eps: f32,
    /// Factor of all weights.
    pub scale: f32,
    /// Experts from this one on weigh nothing.
    pub first_weightless: u32,
}

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Logits `[T, E]`, f32.
    pub logits: &'a Buffer,
    /// Added to the scores for the choice `[E]`.
    pub bias: Option<&'a Buffer>,
    /// Factors of the weights `[E]`.
    pub expert_scale: Option<&'a Buffer>,
    /// What the routes say in the place of each expert, u32 `[E]`: experts of several layers in one pool (ReXMoE, 2510.17483).
    pub table: Option<&'a Buffer>,
    /// Routes `[T, K, 2]`: expert or [`NONE`](super::NONE), bits of its weight.
    pub routes: &'a Buffer,
}

const FILE: &str = "moe/route.wgsl";
/// Most experts of a router.
pub const MAX_EXPERTS: u32 = 1024;
/// Most experts of a token, and groups.
pub const MAX_SLOTS: u32 = 64;

const SPEC: KernelSpec = KernelSpec {
    name: "moe_route",
    bindings: &[read("logits"), read("bias"), read("expert_scale"), read("table"), read_write("routes")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// Checks what a router asks for.
///
/// # Errors
/// No experts, or too many; fewer than one or more than E of a token; groups that do not divide E or, where each gives some, K;
/// fewer than one or more than all groups to keep; sums of two keys of groups of one expert; a sparse mixer of other than two
/// logits, or with weights of another kind; a softmax of the chosen that is normalised again; more experts without weight than
/// experts.
pub fn check(router: &Router) -> Result<(), KernelError> {
    let bad = |field, got: u32, must_be| {
        Err(KernelError::BadParam { kernel: SPEC.name, field, got: got.into(), must_be })
    };
    let Router { experts, k, .. } = *router;
    if experts == 0 || experts > MAX_EXPERTS {
        return bad("experts", experts, "1 to 1024");
    }
    if k == 0 || k > experts || k > MAX_SLOTS {
        return bad("experts of a token", k, "1 to the number of experts, at most 64");
    }
    if router.weightless > experts {
        return bad("experts without weight", router.weightless, "at most the number of experts");
    }
    let groups = match router.groups {
        Groups::Any => 1,
        Groups::Limited { groups, .. } | Groups::Each { groups } => groups,
    };
    if groups == 0 || groups > MAX_SLOTS || !experts.is_multiple_of(groups) {
        return bad("groups of experts", groups, "1 to 64, a divisor of the number of experts");
    }
    match router.groups {
        Groups::Limited { keep, .. } if keep == 0 || keep > groups => {
            return bad("groups that are kept", keep, "1 to the number of groups");
        }
        Groups::Limited { keep, fill_zero: false, .. } if keep * (experts / groups) < k => {
            return bad("groups that are kept", keep, "enough for the experts of a token");
        }
        Groups::Each { .. } if !k.is_multiple_of(groups) || k / groups > experts / groups => {
            return bad("experts of a token", k, "a multiple of the groups, at most all of each");
        }
        _ => {}
    }
    if let Groups::Limited { groups, two_best: true, .. } = router.groups
        && groups == experts
    {
        return bad("experts of a group", 1, "at least 2, whose keys are added");
    }
    let own_weights = router.weight != Weight::Score || router.bias_in_weight;
    if matches!(router.choose, Choose::SparseMixer { .. })
        && (k != 2 || router.score != Score::Logit || own_weights)
    {
        return bad("experts of a token", k, "2 of a sparse mixer, which makes weights of logits itself");
    }
    if router.weight == Weight::Softmax && router.normalise != Normalise::None {
        return bad("normalisations of a softmax", 1, "none: its weights have the sum 1");
    }
    Ok(())
}

/// Appends the routes of tokens: [`Router`] says what is computed.
///
/// # Errors
/// As [`check`]; buffers that are too short; as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    router: &Router,
    num_tokens: u32,
) -> Result<(), KernelError> {
    check(router)?;
    let [t, e, k] = [num_tokens, router.experts, router.k].map(u64::from);
    rows::check_sizes(
        SPEC.name,
        [
            ("logits", Some(args.logits), rows::product([4, t, e])),
            ("bias", args.bias, 4 * e),
            ("expert_scale", args.expert_scale, 4 * e),
            ("table", args.table, 4 * e),
            ("routes", Some(args.routes), rows::product([8, t, k])),
        ],
    )?;
    let wg = workgroup(rec.caps(), router);
    let (_, subgroup) = rows::pick(rec.caps(), SPEC.name, false, wg > 1);
    let vectors = [args.bias, args.expert_scale, args.table];
    let choice = choice(wg, subgroup, router, vectors.map(|b| b.is_some()));
    let grid = rows::row_grid(rec.caps(), num_tokens);
    let params = Params { grid_x: grid[0], ..params(router, num_tokens) };
    let none = rec.gpu().dummy()?;
    let [bias, expert_scale, table] = vectors.map(|b| b.unwrap_or(&none));
    let buffers = [args.logits, bias, expert_scale, table, args.routes];
    rec.dispatch(&SPEC, choice, &params, &buffers, grid)
}

/// A CPU's invocations wait for each other one by one, so one does it all: experts are few.
fn workgroup(caps: &Caps, router: &Router) -> u32 {
    if caps.cpu_variants() { 1 } else { router.experts.clamp(32, 128).next_power_of_two() }
}

fn params(router: &Router, num_tokens: u32) -> Params {
    let (num_groups, keep_groups) = match router.groups {
        Groups::Any => (1, 1),
        Groups::Limited { groups, keep, .. } => (groups, keep),
        Groups::Each { groups } => (groups, groups),
    };
    let eps = match router.normalise {
        Normalise::None => 0.0,
        Normalise::Sum { eps } => eps,
        Normalise::AtLeast { least } => least,
    };
    let mixer_eps = if let Choose::SparseMixer { eps } = router.choose { eps } else { 0.0 };
    let (num_experts, num_slots, scale) = (router.experts, router.k, router.scale);
    Params {
        num_tokens,
        num_experts,
        num_slots,
        num_groups,
        keep_groups,
        grid_x: 1,
        eps,
        mixer_eps,
        scale,
        first_weightless: num_experts - router.weightless,
    }
}

fn choice(wg: u32, subgroup: bool, router: &Router, [bias, expert_scale, table]: [bool; 3]) -> Choice {
    let memory = router.experts.max(wg).next_power_of_two();
    let groups = match router.groups {
        Groups::Any => 0u32,
        Groups::Limited { two_best, .. } => 1 + u32::from(two_best),
        Groups::Each { .. } => 3,
    };
    let normalise = match router.normalise {
        Normalise::None => 0u32,
        Normalise::Sum { .. } => 1,
        Normalise::AtLeast { .. } => 2,
    };
    let selection = Selection::new()
        .set("WG", wg)
        .set("EXPERTS", memory)
        .set("SCORE", router.score as u32)
        .set("HAS_BIAS", bias)
        .set("BIAS_IN_WEIGHT", router.bias_in_weight)
        .set("GROUPS", groups)
        .set("FILL_ZERO", matches!(router.groups, Groups::Limited { fill_zero: true, .. }))
        .set("WEIGHT", router.weight as u32)
        .set("NORMALISE", normalise)
        .set("SPARSE_MIXER", matches!(router.choose, Choose::SparseMixer { .. }))
        .set("HAS_WEIGHTLESS", router.weightless > 0)
        .set("HAS_EXPERT_SCALE", expert_scale)
        .set("HAS_TABLE", table);
    Choice {
        file: FILE,
        variant: rows::variant(false, subgroup),
        selection: if subgroup {
            selection.part("reduce_key", "common/reduce_key_subgroup.wgsl")
        } else {
            selection
        },
        invocations: wg,
        // A key and an index for each invocation, or for each subgroup of at least 4; keys and scores; groups and choices.
        workgroup_bytes: 2 * array_bytes(if subgroup { wg.div_ceil(4) } else { wg })
            + 2 * array_bytes(memory)
            + 2 * array_bytes(MAX_SLOTS),
        requires: Requires::subgroups_if(subgroup),
        data: Data::Plain,
    }
}

/// What a selection and its parameters ask for.
fn router_of(s: &Selection, p: &Params) -> Router {
    let number = |name: &str| s.get_u32(name).unwrap_or(0);
    Router {
        experts: p.num_experts,
        k: p.num_slots,
        score: [Score::Softmax, Score::Sigmoid, Score::SqrtSoftplus, Score::Logit]
            [number("SCORE").min(3) as usize],
        groups: match number("GROUPS") {
            0 => Groups::Any,
            3 => Groups::Each { groups: p.num_groups },
            two => Groups::Limited {
                groups: p.num_groups,
                keep: p.keep_groups,
                two_best: two == 2,
                fill_zero: s.get_bool("FILL_ZERO"),
            },
        },
        choose: if s.get_bool("SPARSE_MIXER") {
            Choose::SparseMixer { eps: p.mixer_eps }
        } else {
            Choose::Best
        },
        weight: [Weight::Score, Weight::Softmax, Weight::Sigmoid][number("WEIGHT").min(2) as usize],
        bias_in_weight: s.get_bool("BIAS_IN_WEIGHT"),
        weightless: p.num_experts - p.first_weightless,
        normalise: match number("NORMALISE") {
            0 => Normalise::None,
            1 => Normalise::Sum { eps: p.eps },
            _ => Normalise::AtLeast { least: p.eps },
        },
        scale: p.scale,
    }
}

/// The definition.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let router = router_of(call.selection, &p);
    let logits: Vec<f32> = call.get(0);
    let vector = |name: &str, i: usize| call.selection.get_bool(name).then(|| call.get::<f32>(i));
    let (bias, expert_scale) = (vector("HAS_BIAS", 1), vector("HAS_EXPERT_SCALE", 2));
    let table: Option<Vec<u32>> = call.selection.get_bool("HAS_TABLE").then(|| call.get(3));
    let mut routes: Vec<[u32; 2]> = call.get(4);
    let tokens = logits.chunks_exact(router.experts as usize).take(p.num_tokens as usize);
    for (token, logits) in tokens.enumerate() {
        let of = route(&router, logits, bias.as_deref(), expert_scale.as_deref());
        for (j, (expert, weight)) in of.into_iter().enumerate() {
            let name = table.as_ref().and_then(|t| t.get(expert as usize)).copied().unwrap_or(expert);
            routes[token * router.k as usize + j] = [name, (weight as f32).to_bits()];
        }
    }
    call.put(4, &routes);
}

/// Routers of families, each with whether it has a bias, factors, a table.
fn routers() -> Vec<(&'static str, Router, [bool; 3])> {
    let base = Router { experts: 16, k: 4, ..Router::default() };
    let sum = |eps| Normalise::Sum { eps };
    let limited = |two_best, fill_zero| Groups::Limited { groups: 4, keep: 2, two_best, fill_zero };
    let sigmoid = Router { score: Score::Sigmoid, ..base };
    let logit = Router { score: Score::Logit, ..base };
    vec![
        ("olmoe", base, NOTHING),
        ("mixtral", Router { normalise: sum(0.0), ..base }, NOTHING),
        ("gpt_oss", Router { weight: Weight::Softmax, ..logit }, NOTHING),
        ("deepseek_v2", Router { groups: limited(false, true), scale: 16.0, ..base }, NOTHING),
        (
            "deepseek_v3",
            Router { groups: limited(true, false), normalise: sum(1e-20), scale: 2.5, ..sigmoid },
            BIAS,
        ),
        ("minimax_m2", Router { normalise: sum(0.0), ..sigmoid }, BIAS),
        ("ernie", Router { normalise: Normalise::AtLeast { least: 1e-12 }, ..base }, BIAS),
        ("pangu", Router { groups: Groups::Each { groups: 4 }, ..base }, [false, true, false]),
        ("llama_4", Router { k: 1, weight: Weight::Sigmoid, ..logit }, NOTHING),
        ("llada", Router { bias_in_weight: true, ..base }, BIAS),
        ("moe_plus_plus", Router { k: 2, weightless: 1, normalise: sum(0.0), ..base }, NOTHING),
        ("rexmoe", base, [false, false, true]),
        (
            "deepseek_v4",
            Router { score: Score::SqrtSoftplus, normalise: sum(1e-20), scale: 1.5, ..base },
            BIAS,
        ),
        ("phi", Router { k: 2, choose: Choose::SparseMixer { eps: 0.01 }, ..logit }, NOTHING),
    ]
}

const NOTHING: [bool; 3] = [false; 3];
const BIAS: [bool; 3] = [true, false, false];

const WORKGROUPS: [u32; 4] = [1, 32, 64, 128];

/// With subgroups where there is more than one invocation.
fn variants(wg: u32) -> impl Iterator<Item = (u32, bool)> {
    [false, true].into_iter().filter(move |&subgroup| wg > 1 || !subgroup).map(move |subgroup| (wg, subgroup))
}

fn choices() -> Vec<Choice> {
    let mut all = Vec::new();
    for (_, router, vectors) in routers() {
        let variants = WORKGROUPS.into_iter().flat_map(variants);
        all.extend(variants.map(|(wg, subgroup)| choice(wg, subgroup, &router, vectors)));
    }
    let most = Router { experts: MAX_EXPERTS, k: MAX_SLOTS, ..Router::default() };
    all.push(choice(128, false, &most, [true; 3]));
    all
}

/// A case, whose logits are distinct multiples of a 16th but for some tokens: ties, zeros of both signs, NaN, infinities.
fn case(
    (name, regime): (&str, Regime),
    (router, vectors): (Router, [bool; 3]),
    num_tokens: u32,
    workgroups: &[u32],
) -> TestCase {
    let e = router.experts;
    let mut logits = Vec::new();
    for token in 0..num_tokens {
        let (factor, offset) = (2 * (hash(token) % e) + 1, hash(token + 7) % e);
        for i in 0..e {
            // A permutation where the factor and E share no divisor, with ties where they do.
            let place = (i * factor + offset) % e;
            logits.push(place as f32 * 3.0 / e as f32 - 1.5);
        }
        let row = &mut logits[(token * e) as usize..];
        match token % 6 {
            2 => row[(hash(token) % e) as usize] = f32::NAN,
            3 => row.fill(f32::NAN),
            4 => row[..e as usize / 2].fill(f32::NEG_INFINITY),
            5 => row.iter_mut().step_by(2).for_each(|v| *v = if *v > 0.0 { 0.0 } else { -0.0 }),
            _ => {}
        }
    }
    let vector = |seed: u32, from: f32| -> Vec<f32> {
        (0..e).map(|i| from + (hash(i + seed) % 5) as f32 / 32.0).collect()
    };
    let routes = vec![[0xdead_beefu32; 2]; (num_tokens * router.k) as usize];
    let mut case = TestCase::new(name, regime, Tolerance { abs: 2e-6, rel: 4e-6 })
        .input(&logits)
        .input(&vector(100, -0.0625))
        .input(&vector(200, 0.5))
        .input(&(0..e).map(|i| 5 * i + 3).collect::<Vec<u32>>())
        .in_out(&routes, Element::Routes);
    let grid = rows::wrapped_grid(num_tokens, 4);
    for (wg, subgroup) in workgroups.iter().copied().flat_map(variants) {
        let params = Params { grid_x: grid[0], ..params(&router, num_tokens) };
        case = case.launch(choice(wg, subgroup, &router, vectors), &params, grid);
    }
    case
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let mut cases = Vec::new();
    for (name, router, vectors) in routers() {
        // All settings in one invocation; in many, those that differ in what invocations share.
        let many = matches!(name, "mixtral" | "deepseek_v3" | "pangu");
        let workgroups: &[u32] = if many { &[1, 64] } else { &[1] };
        cases.push(case((name, PartialTile), (router, vectors), 13, workgroups));
    }
    let softmax = Router { normalise: Normalise::Sum { eps: 0.0 }, ..Router::default() };
    let of = |experts, k| (Router { experts, k, ..softmax }, NOTHING);
    cases.extend([
        case(("one_expert", OneTile), of(1, 1), 3, &[1, 32]),
        case(("all_experts", PartialTile), of(7, 7), 6, &[1, 32]),
        case(("qwen3_moe", Model), of(128, 8), 9, &[1, 128]),
        case(("many", ManyTiles), of(300, 20), 7, &[1, 128]),
        case(("most", ManyTiles), of(MAX_EXPERTS, MAX_SLOTS), 3, &[128]),
    ]);
    let groups = Groups::Limited { groups: 8, keep: 4, two_best: true, fill_zero: false };
    let (score, normalise) = (Score::Sigmoid, Normalise::Sum { eps: 1e-20 });
    let deepseek = Router { experts: 256, k: 8, score, groups, normalise, scale: 2.5, ..softmax };
    cases.push(case(("deepseek_v3_671b", Model), (deepseek, BIAS), 8, &[1, 128]));
    cases
}

//! Slots of a memory by product keys.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use super::{NONE, SlotWeight, sizes};
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{Arithmetic, BenchBuffer, BenchCase, Element, Regime, TestCase, Tolerance, hash};
use crate::choice::{Choice, Data, Launch, Requires};
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `product_keys.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Queries Q: tokens, or heads of tokens.
    pub num_queries: u32,
    /// Rows R.
    pub num_rows: u32,
    /// Columns C.
    pub num_columns: u32,
    /// Slots of a query K.
    pub num_slots: u32,
    /// Workgroups along x; more continue along y.
    pub grid_x: u32,
}

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Scores of rows `[Q, R]`, f32.
    pub rows: &'a Buffer,
    /// Scores of columns `[Q, C]`, f32.
    pub columns: &'a Buffer,
    /// Routes `[Q, K, 2]`: slot or [`NONE`], bits of its weight.
    pub routes: &'a Buffer,
}

const FILE: &str = "memory/product_keys.wgsl";
/// Most slots of a query.
pub const MAX_SLOTS: u32 = 64;

const SPEC: KernelSpec = KernelSpec {
    name: "product_keys",
    bindings: &[read("rows"), read("columns"), read_write("routes")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches, cases_of: None, tuning: None, cost: None };

/// Appends the K best of the R C slots of each query, best first: slot `i C + j` has the score `rows[i] + columns[j]`, rounded to
/// f32, minus infinity where one of the two is. Among equals the better row goes first, then the better column; of equal rows or
/// columns the one with the lower index. What is NaN is not chosen; slots that are missing have the weight 0.
///
/// # Errors
/// No rows or columns, no slots or more than [`MAX_SLOTS`] or than there are, 2^32 - 1 slots of the memory or more, buffers that
/// are too short, sizes beyond 32 bits, and as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    [num_queries, num_rows, num_columns, num_slots]: [u32; 4],
    weight: SlotWeight,
) -> Result<(), KernelError> {
    rows::positive(SPEC.name, "rows", num_rows)?;
    rows::positive(SPEC.name, "columns", num_columns)?;
    let bad = |field, got, must_be| Err(KernelError::BadParam { kernel: SPEC.name, field, got, must_be });
    let all = u64::from(num_rows) * u64::from(num_columns);
    if all >= NONE.into() {
        return bad("slots of the memory", all, "below 2^32 - 1");
    }
    if num_slots == 0 || num_slots > MAX_SLOTS || u64::from(num_slots) > all {
        return bad("slots of a query", num_slots.into(), "1 to those of the memory, at most 64");
    }
    rows::elements(SPEC.name, num_queries, num_rows.max(num_columns).max(num_slots))?;
    let [q, r, c, k] = [num_queries, num_rows, num_columns, num_slots].map(u64::from);
    rows::check_sizes(
        SPEC.name,
        [
            ("rows", Some(args.rows), 4 * q * r),
            ("columns", Some(args.columns), 4 * q * c),
            ("routes", Some(args.routes), 8 * q * k),
        ],
    )?;
    let launch = launch(rec.caps(), [num_queries, num_rows, num_columns, num_slots], weight);
    rec.launch(&SPEC, &launch, &[args.rows, args.columns, args.routes])
}

fn launch(caps: &Caps, sizes: [u32; 4], weight: SlotWeight) -> Launch {
    let longest = sizes[1].max(sizes[2]);
    // A CPU's invocations wait for each other one by one, so one does it all.
    let wg = if caps.cpu_variants() { 1 } else { longest.clamp(32, 128).next_power_of_two() };
    let (_, subgroup) = rows::pick(caps, SPEC.name, false, wg > 1);
    let grid = rows::row_grid(caps, sizes[0]);
    Launch::new(choice(wg, subgroup, weight), &params(sizes, grid[0]), grid)
}

fn params([num_queries, num_rows, num_columns, num_slots]: [u32; 4], grid_x: u32) -> Params {
    Params { num_queries, num_rows, num_columns, num_slots, grid_x }
}

fn choice(wg: u32, subgroup: bool, weight: SlotWeight) -> Choice {
    let selection = Selection::new().set("WG", wg).set("WEIGHT", weight as u32);
    let best = if subgroup { wg.div_ceil(4) } else { wg };
    let words = |words: u32| (4 * words).next_multiple_of(16);
    Choice {
        file: FILE,
        variant: rows::variant(false, subgroup),
        selection: if subgroup {
            selection.part("reduce_key", "common/reduce_key_subgroup.wgsl")
        } else {
            selection
        },
        invocations: wg,
        // Keys and indices of rows and columns, next columns; what is compared; sums of exponentials.
        workgroup_bytes: 5 * words(MAX_SLOTS) + 2 * words(best) + words(2 * wg),
        requires: Requires::subgroups_if(subgroup),
        data: Data::Plain,
    }
}

const WEIGHTS: [SlotWeight; 4] =
    [SlotWeight::Softmax, SlotWeight::Probability, SlotWeight::Relu, SlotWeight::Score];

/// With subgroups where there is more than one invocation.
fn variants() -> impl Iterator<Item = (u32, bool)> {
    [1, 32, 64, 128].into_iter().flat_map(|wg| [(wg, false), (wg, true)]).filter(|&(wg, s)| wg > 1 || !s)
}

fn choices() -> Vec<Choice> {
    variants().flat_map(|(wg, subgroup)| WEIGHTS.map(|weight| choice(wg, subgroup, weight))).collect()
}

/// Order of f32 as order of u32: NaN is 0, below everything; -0 equals 0.
fn order_key(x: f32) -> u32 {
    let bits = if x == 0.0 { 0 } else { x.to_bits() };
    match bits >> 31 {
        _ if x.is_nan() => 0,
        1 => !bits,
        _ => bits | 0x8000_0000,
    }
}

/// The k best scores, best first; none that is NaN.
fn best(scores: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).filter(|&i| !scores[i].is_nan()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(order_key(scores[i])));
    order.truncate(k);
    order
}

fn exp_below(l: f64, top: f64) -> f64 {
    if l == f64::NEG_INFINITY {
        0.0
    } else if l == top {
        1.0
    } else {
        (l - top).exp()
    }
}

/// Slot and weight of each route of a query.
fn route(rows: &[f32], columns: &[f32], k: usize, weight: SlotWeight) -> Vec<(u32, f64)> {
    let (of_rows, of_columns) = (best(rows, k), best(columns, k));
    let sum = |i: usize, j: usize| {
        let (a, b) = (rows[i], columns[j]);
        if a == f32::NEG_INFINITY || b == f32::NEG_INFINITY { f32::NEG_INFINITY } else { a + b }
    };
    let pairs = of_rows.iter().flat_map(|&i| of_columns.iter().map(move |&j| (i, j)));
    let mut found: Vec<(usize, usize)> = pairs.collect();
    found.sort_by_key(|&(i, j)| std::cmp::Reverse(order_key(sum(i, j))));
    found.truncate(k);
    let score = |&(i, j): &(usize, usize)| f64::from(sum(i, j));
    let top = found.first().map_or(0.0, score);
    let share = |of: &[f32], order: &[usize], i: usize| {
        let top = f64::from(of[order[0]]);
        let sum: f64 = of.iter().filter(|l| !l.is_nan()).map(|&l| exp_below(l.into(), top)).sum();
        if sum > 0.0 { exp_below(of[i].into(), top) / sum } else { 0.0 }
    };
    let total: f64 = found.iter().map(|pair| exp_below(score(pair), top)).sum();
    let weight_of = |pair: &(usize, usize)| match weight {
        SlotWeight::Softmax if total > 0.0 => exp_below(score(pair), top) / total,
        SlotWeight::Softmax => 0.0,
        SlotWeight::Probability => share(rows, &of_rows, pair.0) * share(columns, &of_columns, pair.1),
        SlotWeight::Relu => score(pair).max(0.0),
        SlotWeight::Score => score(pair),
    };
    let slot = |&(i, j): &(usize, usize)| (i * columns.len() + j) as u32;
    let mut routes: Vec<(u32, f64)> = found.iter().map(|pair| (slot(pair), weight_of(pair))).collect();
    routes.resize(k, (NONE, 0.0));
    routes
}

/// The definition: the best rows and columns, sorted; their sums, sorted.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let weight = WEIGHTS[call.selection.get_u32("WEIGHT").unwrap_or(0).min(3) as usize];
    let (rows, columns): (Vec<f32>, Vec<f32>) = (call.get(0), call.get(1));
    let (r, c, k) = (p.num_rows as usize, p.num_columns as usize, p.num_slots as usize);
    let mut routes: Vec<[u32; 2]> = call.get(2);
    for q in 0..p.num_queries as usize {
        let of = route(&rows[q * r..(q + 1) * r], &columns[q * c..(q + 1) * c], k, weight);
        for (j, (slot, weight)) in of.into_iter().enumerate() {
            routes[q * k + j] = [slot, (weight as f32).to_bits()];
        }
    }
    call.put(2, &routes);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    use SlotWeight::{Probability, Relu, Score, Softmax};
    // `values`: how many scores there are, so that few make many ties.
    let case = |(name, regime): (&str, Regime), sizes: [u32; 4], values: u32, of: &[(u32, SlotWeight)]| {
        let [q, r, c, k] = sizes;
        let scores = |n: u32, seed: u32| -> Vec<f32> {
            let score = |i: u32| match (hash(i + seed) % 31, i / n) {
                (_, 4) | (0, _) => f32::NAN,
                (1, _) => f32::NEG_INFINITY,
                (2, 2) => f32::INFINITY,
                (3, _) => -0.0,
                _ => (hash(i + seed + 9) % values) as f32 / values as f32 * 4.0 - 2.0,
            };
            (0..q * n).map(score).collect()
        };
        let mut case = TestCase::new(name, regime, Tolerance { abs: 2e-6, rel: 6e-6 })
            .input(&scores(r, 0))
            .input(&scores(c, 77_777))
            .in_out(&vec![[0xdead_beefu32; 2]; (q * k) as usize], Element::Routes);
        let grid = rows::wrapped_grid(q, 3);
        for &(wg, weight) in of {
            for subgroup in [false, true].into_iter().filter(|&s| wg > 1 || !s) {
                case = case.launch(choice(wg, subgroup, weight), &params(sizes, grid[0]), grid);
            }
        }
        case
    };
    // All weights in one invocation; in many, the one that shares most.
    vec![
        case(("one", OneTile), [2, 1, 1, 1], 64, &[(1, Softmax), (32, Probability)]),
        case(("all", OneTile), [6, 3, 2, 6], 64, &[(1, Probability), (32, Probability)]),
        case(("ties", PartialTile), [5, 37, 70, 20], 3, &[(1, Score), (1, Relu), (32, Probability)]),
        case(("most", ManyTiles), [4, 130, 90, 64], 4096, &[(1, Softmax), (32, Probability)]),
        case(("ultramem", Model), [2, 360, 360, 32], 4096, &[(1, Score)]),
        case(("omni_moe", Model), [2, 512, 512, 16], 4096, &[(1, Probability), (32, Probability)]),
    ]
}

fn bench_launches(caps: &Caps, name: &str) -> Vec<Launch> {
    let of = |[q, n, k]: [u32; 3]| launch(caps, [q, n, n, k], SlotWeight::Softmax);
    sizes(name).map(of).into_iter().collect()
}

/// Queries x keys of a half x slots: PEER's million experts of a token and of 64, `UltraMem`'s.
fn benches() -> Vec<BenchCase> {
    [[8u32, 1024, 16], [512, 1024, 16], [1, 360, 32]]
        .map(|[q, n, k]| {
            let (scores, routes) = (q * n, q * k);
            BenchCase {
                name: format!("{q}x{n}x{k}"),
                buffers: vec![
                    BenchBuffer::F32(scores as usize),
                    BenchBuffer::F32(scores as usize),
                    BenchBuffer::F32(2 * routes as usize),
                ],
                launches: bench_launches,
                bytes: 8 * u64::from(scores + routes),
                written: 8 * u64::from(routes),
                flops: u64::from(k) * u64::from(routes),
                arithmetic: Arithmetic::F32,
            }
        })
        .into()
}

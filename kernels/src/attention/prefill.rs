//! Attention of any number of rows of each sequence.

use crate::attention::measured::{self, Named};
use crate::attention::{Args, BINDINGS, PROBLEM, Params, Problem, Shape, reference};
use crate::caps::Caps;
use crate::case::{Arithmetic, BenchBuffer, BenchCase, Regime, TestCase};
use crate::choice::{Choice, Data, Launch, Requires};
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::spec::{Kernel, KernelSpec, Tuning, Ways, Workload};

const SPEC: KernelSpec = KernelSpec {
    name: "attention_prefill",
    bindings: BINDINGS,
    params_bytes: size_of::<Params>(),
    twin: reference::attention,
};

/// Registry entry.
pub const KERNEL: Kernel = Kernel {
    spec: &SPEC,
    choices,
    cases,
    benches,
    cases_of: None,
    tuning: Some(Tuning { ways, workload }),
    cost: Some(measured::cost),
};

/// Appends `o = softmax(scale · q kᵀ) v` and its log-sum-exp.
///
/// # Errors
/// Heads that do not divide, head dims over [`MAX_KEY_DIM`](crate::attention::MAX_KEY_DIM), as [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, args: Args<'_>, shape: &Shape) -> Result<(), KernelError> {
    shape.check(SPEC.name)?;
    let (choice, params, grid) = select(rec.caps(), shape, args.sinks.is_some());
    rec.dispatch(&SPEC, choice, &params, &args.buffers(), grid)
}

/// The measured winner, or what the rule says.
fn select(caps: &Caps, shape: &Shape, has_sinks: bool) -> (Choice, Params, [u32; 3]) {
    let data = Data::KeysValues { f16: shape.f16 };
    let winner = caps.winner(SPEC.name, data, || class(shape), || candidates(caps, shape));
    let tuned = winner.map(|winner| winner.0).filter(|choice| caps.runs(choice)).map(|choice| {
        let (params, grid) = launch(&choice, shape, has_sinks);
        (choice, params, grid)
    });
    tuned.unwrap_or_else(|| rule(caps, shape, has_sinks))
}

/// Shapes that have one winner: numbers of rows up to the same power of two.
fn class(shape: &Shape) -> String {
    format!("{}x{}", shape.max_q_len.next_power_of_two(), measured::heads(shape))
}

/// What may be selected on a device.
fn candidates(caps: &Caps, shape: &Shape) -> Vec<Named> {
    let of_device = Tiling::of(caps);
    let of_rows = |most_rows| tiles_subgroup(shape, Tiling { most_rows, ..of_device });
    let mut all = [MOST_ROWS, Tiling::NARROW.most_rows].map(of_rows).to_vec();
    all.push(tiles(shape, of_device));
    if caps.cpu_variants() {
        let of = |lanes| [2, 4].map(|rows| rows_of_lanes(shape, lanes, rows));
        all.extend([8, 4].into_iter().flat_map(of));
        all.push(rows(shape));
    }
    measured::legal(caps, SPEC.name, all)
}

fn ways(caps: &Caps, recorded: &Launch) -> Option<Ways> {
    let (shape, params) = measured::recorded(recorded, 0)?;
    let has_sinks = params.has_sinks != 0;
    let (choice, ..) = rule(caps, &shape, has_sinks);
    let ways =
        measured::ways(&SPEC, choice, candidates(caps, &shape), |choice| launch(choice, &shape, has_sinks));
    Some(Ways { shape: class(&shape), ways })
}

fn workload(caps: &Caps, recorded: &Launch) -> Option<Workload> {
    let (shape, params) = measured::recorded(recorded, 0)?;
    let (choice, params, _) = rule(caps, &shape, params.has_sinks != 0);
    Some(measured::workload(&shape, choice, params))
}

fn rule(caps: &Caps, shape: &Shape, has_sinks: bool) -> (Choice, Params, [u32; 3]) {
    let smallest = caps.subgroup_size.filter(|_| caps.subgroups()).map_or(0, |(min, _)| min);
    let data = Data::KeysValues { f16: shape.f16 };
    let allowed = |variant: &str| !caps.is_blocked(SPEC.name, variant, data);
    let choice = if caps.cpu_variants() && allowed("rows") {
        let lanes = if smallest >= 8 { 8 } else { 4 };
        if smallest >= lanes && allowed("rows_subgroup") { rows_subgroup(shape, lanes) } else { rows(shape) }
    } else if smallest >= 8 && allowed("tiles_subgroup") {
        tiles_subgroup(shape, Tiling::of(caps))
    } else {
        tiles(shape, Tiling::of(caps))
    };
    let (params, grid) = launch(&choice, shape, has_sinks);
    (choice, params, grid)
}

fn launch(choice: &Choice, shape: &Shape, has_sinks: bool) -> (Params, [u32; 3]) {
    let get = |name| choice.selection.get_u32(name).unwrap_or(0);
    let tile = if get("R") > 0 { get("R") * get("LANES") } else { get("RT") * TILE_ROWS };
    let rows = u64::from(shape.max_q_len) * u64::from(shape.group());
    let row_tiles = rows.div_ceil(u64::from(tile)).min(u64::from(u32::MAX)) as u32;
    let params = Params { row_tiles, ..shape.params(has_sinks) };
    (params, [row_tiles, shape.num_kv_heads, shape.num_seqs])
}

/// Rows of an invocation where registers are many.
const MOST_ROWS: u32 = 4;

/// Channels or keys without a jump between, on GPUs.
const UNROLLED: u32 = 4;

/// What an invocation does of a tile.
#[derive(Clone, Copy)]
struct Tiling {
    /// Rows at most.
    most_rows: u32,
    /// Channels, and keys, without a jump between.
    unrolled: u32,
}

impl Tiling {
    /// What a CPU compiles in seconds.
    const SHORT: Self = Self { most_rows: MOST_ROWS, unrolled: 1 };
    /// What a GPU computes fast.
    const LONG: Self = Self { most_rows: MOST_ROWS, unrolled: UNROLLED };
    /// The same where registers are few: four rows of D = 64 spill.
    const NARROW: Self = Self { most_rows: 2, ..Self::LONG };

    /// LLVM, which makes a coroutine of every workgroup with barriers, takes seven times as long for unrolled loops.
    fn of(caps: &Caps) -> Self {
        match (caps.is_cpu, caps.few_registers) {
            (true, _) => Self::SHORT,
            (false, true) => Self::NARROW,
            (false, false) => Self::LONG,
        }
    }
}

/// Rows of invocations of a tile: `TY`.
const TILE_ROWS: u32 = 16;

fn tiles(shape: &Shape, tiling: Tiling) -> Choice {
    let chunks = shape.value_dim.div_ceil(32);
    // At most 48 accumulators of an invocation; as many rows as asked for where they fit.
    let rows = (12 / chunks).clamp(1, tiling.most_rows);
    let rows = if rows == 3 { 2 } else { rows };
    Choice {
        file: "attention/prefill.wgsl",
        variant: "tiles",
        selection: shape
            .selection()
            .set("RT", rows)
            .set("VALUE_CHUNKS", chunks)
            .set("UNROLLED", tiling.unrolled),
        invocations: 128,
        workgroup_bytes: 16 * (9 * TILE_ROWS * rows + 9 * 32 + 128),
        requires: Requires::NOTHING,
        data: Data::KeysValues { f16: shape.f16 },
    }
}

fn tiles_subgroup(shape: &Shape, tiling: Tiling) -> Choice {
    let portable = tiles(shape, tiling);
    Choice {
        variant: "tiles_subgroup",
        selection: portable.selection.part("rows", "attention/rows_subgroup.wgsl").set("LANES", 8),
        workgroup_bytes: portable.workgroup_bytes - 16 * 128,
        requires: Requires::lanes(8),
        ..portable
    }
}

fn rows(shape: &Shape) -> Choice {
    Choice {
        file: "attention/prefill_rows.wgsl",
        variant: "rows",
        selection: shape.selection().set("LANES", 8).set("R", 2).set("KG", 1),
        invocations: 8,
        workgroup_bytes: 0,
        requires: Requires::NOTHING,
        data: Data::KeysValues { f16: shape.f16 },
    }
}

fn rows_subgroup(shape: &Shape, lanes: u32) -> Choice {
    // More rows reuse keys more often; few rows would leave most of a tile empty.
    let few = u64::from(shape.max_q_len) * u64::from(shape.group()) <= 64;
    rows_of_lanes(shape, lanes, if few { 2 } else { 4 })
}

fn rows_of_lanes(shape: &Shape, lanes: u32, rows_of_lane: u32) -> Choice {
    Choice {
        variant: "rows_subgroup",
        selection: shape
            .selection()
            .set("LANES", lanes)
            .set("R", rows_of_lane)
            .set("KG", 4)
            .part("own_key", "attention/own_key_subgroup.wgsl")
            .part("key", "attention/key_subgroup.wgsl")
            .part("own_value", "attention/own_value_subgroup.wgsl")
            .part("value", "attention/value_subgroup.wgsl"),
        invocations: lanes,
        requires: Requires::lanes(lanes),
        ..rows(shape)
    }
}

fn variants(shape: &Shape, tiling: Tiling) -> [Choice; 4] {
    [rows_subgroup(shape, 8), tiles(shape, tiling), tiles_subgroup(shape, tiling), rows(shape)]
}

/// The first cases run in every variant. The others leave out two that differ from the rest in a few lines only, and few have
/// the loops of a GPU: compiling a shader takes a CPU a second, or ten.
/// Narrow subgroups (SwiftShader has 4 lanes) run with each type of cache.
fn launched(at: usize, shape: &Shape) -> Vec<Choice> {
    let count = if at < 11 { 4 } else { 2 };
    let mut launched: Vec<Choice> = variants(shape, Tiling::SHORT).into_iter().take(count).collect();
    match problems()[at].name {
        // SwiftShader, whose subgroups have four lanes, takes minutes to compile 512 values of a row.
        "latent" => launched[1] = tiles_subgroup(shape, Tiling::SHORT),
        "causal" => launched.push(tiles_subgroup(shape, Tiling::NARROW)),
        "partial_f16" => {
            launched.extend([tiles(shape, Tiling::NARROW), tiles_subgroup(shape, Tiling::NARROW)]);
        }
        _ => {}
    }
    // One pipeline of a GPU in every case that it fits: windows, sinks, rows without keys, tiles that end early.
    let small = Problem { heads: [1, 1, 32, 32], ..PROBLEM }.shape();
    let of_gpu = tiles(&small, Tiling::LONG);
    if tiles(shape, Tiling::LONG) == of_gpu {
        launched.push(of_gpu);
    }
    if at == 2 || problems()[at].name == "partial_f16" {
        launched.push(rows_subgroup(shape, 4));
    }
    // Every number of rows of a lane that may become a winner.
    if at == 0 || problems()[at].name == "partial_f16" {
        let every = [8, 4].into_iter().flat_map(|lanes| [2, 4].map(|rows| rows_of_lanes(shape, lanes, rows)));
        for choice in every {
            if !launched.contains(&choice) {
                launched.push(choice);
            }
        }
    }
    launched
}

fn choices() -> Vec<Choice> {
    let mut all: Vec<Choice> = Vec::new();
    for problem in problems() {
        let shape = problem.shape();
        let tilings = [Tiling::SHORT, Tiling::LONG, Tiling::NARROW];
        let tiled = tilings.into_iter().flat_map(|tiling| variants(&shape, tiling));
        for choice in tiled.chain([rows_subgroup(&shape, 4)]) {
            if !all.contains(&choice) {
                all.push(choice);
            }
        }
    }
    all
}

fn problems() -> Vec<Problem> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let p = PROBLEM;
    vec![
        Problem { name: "causal", regime: PartialTile, heads: [4, 2, 64, 64], seqs: &[(37, 37)], ..p },
        Problem { name: "one_key", regime: OneTile, heads: [2, 1, 8, 8], ..p },
        Problem { name: "one_row", regime: PartialTile, heads: [4, 2, 64, 64], seqs: &[(1, 33)], ..p },
        Problem { name: "many_tiles", regime: ManyTiles, heads: [3, 1, 32, 32], seqs: &[(70, 131)], ..p },
        Problem {
            name: "bidirectional",
            regime: PartialTile,
            heads: [2, 2, 20, 24],
            seqs: &[(33, 32)],
            causal: false,
            ..p
        },
        Problem {
            name: "ragged_window",
            regime: PartialTile,
            heads: [4, 1, 16, 16],
            seqs: &[(1, 1), (31, 31), (33, 65), (2, 40), (32, 32)],
            window: Some(7),
            sinks: true,
            ..p
        },
        Problem { name: "llama_1b", regime: Model, heads: [32, 8, 64, 64], seqs: &[(3, 40)], ..p },
        Problem {
            name: "one_key_f16",
            regime: OneTile,
            heads: [4, 2, 64, 64],
            seqs: &[(1, 1)],
            f16: true,
            ..p
        },
        Problem {
            name: "partial_f16",
            regime: PartialTile,
            heads: [4, 2, 64, 64],
            seqs: &[(9, 41)],
            f16: true,
            ..p
        },
        Problem {
            name: "many_tiles_f16",
            regime: ManyTiles,
            heads: [4, 2, 64, 64],
            seqs: &[(32, 96)],
            f16: true,
            ..p
        },
        Problem {
            name: "llama_1b_f16",
            regime: Model,
            heads: [32, 8, 64, 64],
            seqs: &[(3, 40)],
            f16: true,
            ..p
        },
        Problem {
            name: "window_1",
            regime: OneTile,
            heads: [2, 1, 32, 32],
            seqs: &[(6, 9)],
            window: Some(1),
            ..p
        },
        Problem {
            name: "more_rows_than_keys",
            regime: PartialTile,
            heads: [2, 1, 32, 32],
            seqs: &[(40, 3)],
            sinks: true,
            ..p
        },
        Problem {
            name: "rows_without_keys",
            regime: PartialTile,
            heads: [2, 1, 32, 32],
            seqs: &[(70, 3), (4, 9)],
            ..p
        },
        Problem {
            name: "softcap",
            regime: PartialTile,
            heads: [2, 1, 32, 32],
            seqs: &[(9, 20)],
            softcap: Some(0.5),
            ..p
        },
        Problem {
            name: "f16_gqa7",
            regime: PartialTile,
            heads: [7, 1, 64, 64],
            seqs: &[(11, 50)],
            f16: true,
            ..p
        },
        Problem {
            name: "odd_dims",
            regime: PartialTile,
            heads: [3, 3, 17, 10],
            seqs: &[(5, 40)],
            sinks: true,
            ..p
        },
        Problem {
            name: "odd_dims_f16",
            regime: PartialTile,
            heads: [2, 1, 13, 13],
            seqs: &[(5, 9)],
            f16: true,
            ..p
        },
        Problem {
            name: "equal_scores",
            regime: PartialTile,
            heads: [8, 1, 32, 32],
            seqs: &[(5, 70)],
            magnitude: 0.0,
            ..p
        },
        Problem {
            name: "large_scores",
            regime: PartialTile,
            heads: [2, 1, 80, 80],
            seqs: &[(17, 40)],
            magnitude: 6.0,
            ..p
        },
        Problem { name: "wide", regime: PartialTile, heads: [2, 1, 128, 256], seqs: &[(5, 40)], ..p },
        // Latents with their rotated part.
        Problem { name: "latent", regime: PartialTile, heads: [5, 1, 576, 512], seqs: &[(3, 40)], ..p },
        Problem { name: "d96", regime: PartialTile, heads: [2, 2, 96, 96], seqs: &[(34, 50)], ..p },
    ]
}

fn cases() -> Vec<TestCase> {
    problems()
        .iter()
        .enumerate()
        .map(|(at, problem)| {
            let shape = problem.shape();
            launched(at, &shape).into_iter().fold(problem.case(), |case, choice| {
                let (params, grid) = launch(&choice, &shape, problem.sinks);
                case.launch(choice, &params, grid)
            })
        })
        .collect()
}

fn bench_problems() -> [Problem; 2] {
    let p = PROBLEM;
    [
        Problem { name: "8x512x64", heads: [8, 8, 64, 64], seqs: &[(512, 512)], causal: false, ..p },
        Problem { name: "32/8x2048x128_causal", heads: [32, 8, 128, 128], seqs: &[(2048, 2048)], ..p },
    ]
}

fn benches() -> Vec<BenchCase> {
    bench_problems()
        .iter()
        .map(|problem| {
            let shape = problem.shape();
            let rows = u64::from(shape.num_tokens) * u64::from(shape.num_q_heads);
            let pairs = rows * u64::from(shape.max_kv_len) / if shape.causal { 2 } else { 1 };
            bench(problem, 2 * pairs * u64::from(shape.head_dim + shape.value_dim), bench_launch)
        })
        .collect()
}

pub(super) fn bench(problem: &Problem, flops: u64, launches: fn(&Caps, &str) -> Vec<Launch>) -> BenchCase {
    let shape = problem.shape();
    let kv = [shape.k_strides[0], shape.v_strides[0]].map(|n| (shape.num_seqs * n) as usize);
    let (heads, splits) = ((shape.num_tokens * shape.num_q_heads) as usize, problem.splits as usize);
    let (q, o) = (heads * shape.head_dim as usize, heads * splits * shape.value_dim as usize);
    let mut seqs = Vec::new();
    for (i, &(q_len, kv_len)) in problem.seqs.iter().enumerate() {
        seqs.extend([i as u32 * q_len, q_len, kv_len, i as u32]);
    }
    BenchCase {
        name: problem.name.into(),
        bytes: 4 * (q + o + kv[0] + kv[1]) as u64,
        written: 4 * o as u64,
        arithmetic: Arithmetic::F32,
        buffers: vec![
            BenchBuffer::F32(q),
            BenchBuffer::F32(kv[0]),
            BenchBuffer::F32(kv[1]),
            BenchBuffer::U32(seqs),
            BenchBuffer::F32(shape.num_q_heads as usize),
            BenchBuffer::F32(o),
            BenchBuffer::F32(heads * splits),
        ],
        launches,
        flops,
    }
}

fn bench_launch(caps: &Caps, name: &str) -> Vec<Launch> {
    let problem = bench_problems().into_iter().find(|p| p.name == name);
    problem
        .map(|problem| {
            let (choice, params, grid) = select(caps, &problem.shape(), false);
            Launch::new(choice, &params, grid)
        })
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{MAX_KEY_DIM, MAX_VALUE_DIM, decode};
    use crate::caps::Tier;

    fn caps(tier: Tier, subgroup: Option<(u32, u32)>) -> Caps {
        Caps { tier, subgroup_size: subgroup, is_cpu: tier == Tier::Cpu, ..Caps::baseline() }
    }

    #[test]
    fn every_device_gets_its_variant() {
        let shape = Problem { heads: [4, 2, 64, 64], seqs: &[(100, 100)], ..PROBLEM }.shape();
        let variant = |caps: &Caps| select(caps, &shape, false).0.variant;
        assert_eq!(variant(&caps(Tier::Portable, None)), "tiles");
        assert_eq!(variant(&caps(Tier::Subgroup, Some((32, 32)))), "tiles_subgroup");
        assert_eq!(variant(&caps(Tier::Subgroup, Some((4, 16)))), "tiles");
        assert_eq!(variant(&caps(Tier::Large, Some((32, 32)))), "tiles_subgroup");
        let mut cpu = caps(Tier::Cpu, Some((8, 8)));
        assert_eq!(variant(&cpu), "rows_subgroup");
        cpu.blocked.insert("attention_prefill/rows_subgroup".into());
        assert_eq!(variant(&cpu), "rows");
        cpu.blocked.insert("attention_prefill/rows".into());
        assert_eq!(variant(&cpu), "tiles_subgroup");
        assert_eq!(variant(&caps(Tier::Cpu, None)), "rows");
    }

    #[test]
    fn every_head_dim_fits_16_kib() {
        for dim in 1..=MAX_KEY_DIM {
            for group in [1, 7, 12] {
                let heads = [group, 1, dim, dim.min(MAX_VALUE_DIM)];
                let shape = Problem { heads, ..PROBLEM }.shape();
                let baseline = Caps::baseline();
                let prefill = select(&baseline, &shape, false).0.workgroup_bytes;
                let decode = decode::tests_workgroup_bytes(&baseline, &shape);
                assert!(prefill.max(decode) <= 16 << 10, "dim {dim}: {prefill} and {decode}");
            }
        }
    }
}

//! Attention of one row of each sequence, with the keys split among workgroups.

use crate::attention::measured::{self, Named};
use crate::attention::{Args, BINDINGS, MAX_VALUE_DIM, PROBLEM, Params, Problem, Shape, prefill, reference};
use crate::caps::Caps;
use crate::case::{BenchCase, Regime, TestCase};
use crate::choice::{Choice, Data, Launch, Requires};
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::spec::{Kernel, KernelSpec, Tuning, Ways, Workload};

const SPEC: KernelSpec = KernelSpec {
    name: "attention_decode",
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

/// Appends the attention of each split: its normalised result and log-sum-exp. With one split that is the result,
/// sinks included; with more, [`merge`](crate::attention::merge) joins them and adds the sinks.
///
/// # Errors
/// Heads that do not divide, head dims over [`MAX_KEY_DIM`](crate::attention::MAX_KEY_DIM), no split, a sequence of more
/// than one row, as [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, args: Args<'_>, shape: &Shape, splits: u32) -> Result<(), KernelError> {
    shape.check(SPEC.name)?;
    let bad = |field, got: u32, must_be| {
        Err(KernelError::BadParam { kernel: SPEC.name, field, got: got.into(), must_be })
    };
    if shape.max_q_len > 1 {
        return bad("max_q_len", shape.max_q_len, "1");
    }
    if splits == 0 {
        return bad("splits", splits, "positive");
    }
    let (choice, params, grid) = select(rec.caps(), shape, args.sinks.is_some(), splits);
    rec.dispatch(&SPEC, choice, &params, &args.buffers(), grid)
}

/// Into how many splits the keys of a sequence are best divided: enough workgroups to fill the device, none of
/// them with too few keys to be worth a merge. A function of sizes that do not change while a plan is replayed.
pub fn splits(caps: &Caps, shape: &Shape) -> u32 {
    // Workgroups wanted, keys that a split is worth, most splits.
    let (wanted, worth, most) = if caps.cpu_variants() { (8, 1024, 16) } else { (512, 64, 64) };
    let rows = if caps.cpu_variants() { 8 } else { tile_rows(shape) };
    let groups = shape.num_seqs.saturating_mul(shape.num_kv_heads).saturating_mul(blocks(shape, rows).0);
    let keys = shape.window.map_or(shape.max_kv_len, |w| w.min(shape.max_kv_len));
    (wanted / groups.max(1)).min(keys / worth).clamp(1, most)
}

/// The measured winner, or what the rule says.
fn select(caps: &Caps, shape: &Shape, has_sinks: bool, splits: u32) -> (Choice, Params, [u32; 3]) {
    let data = Data::KeysValues { f16: shape.f16 };
    let winner = caps.winner(SPEC.name, data, || class(shape), || candidates(caps, shape));
    let tuned = winner.map(|winner| winner.0).filter(|choice| caps.runs(choice)).map(|choice| {
        let (params, grid) = launch(&choice, shape, has_sinks, splits);
        (choice, params, grid)
    });
    tuned.unwrap_or_else(|| rule(caps, shape, has_sinks, splits))
}

/// Shapes that have one winner.
fn class(shape: &Shape) -> String {
    measured::heads(shape)
}

/// What may be selected on a device.
fn candidates(caps: &Caps, shape: &Shape) -> Vec<Named> {
    let mut all = [LOADS, FEW_LOADS].map(|n| tiles_subgroup(shape, n)).to_vec();
    all.push(tiles(shape, loads(caps)));
    if caps.cpu_variants() {
        all.extend([lanes(shape, 8), lanes(shape, 4)]);
    }
    measured::legal(caps, SPEC.name, all)
}

fn ways(caps: &Caps, recorded: &Launch) -> Option<Ways> {
    let (shape, params) = measured::recorded(recorded, 1)?;
    let (has_sinks, splits) = (params.has_sinks != 0, params.splits);
    let (choice, ..) = rule(caps, &shape, has_sinks, splits);
    let ways = measured::ways(&SPEC, choice, candidates(caps, &shape), |choice| {
        launch(choice, &shape, has_sinks, splits)
    });
    Some(Ways { shape: class(&shape), ways })
}

fn workload(caps: &Caps, recorded: &Launch) -> Option<Workload> {
    let (shape, params) = measured::recorded(recorded, 1)?;
    let (choice, params, _) = rule(caps, &shape, params.has_sinks != 0, params.splits);
    Some(measured::workload(&shape, choice, params))
}

fn rule(caps: &Caps, shape: &Shape, has_sinks: bool, splits: u32) -> (Choice, Params, [u32; 3]) {
    let smallest = caps.subgroup_size.filter(|_| caps.subgroups()).map_or(0, |(min, _)| min);
    let data = Data::KeysValues { f16: shape.f16 };
    let allowed = |variant: &str| !caps.is_blocked(SPEC.name, variant, data);
    let choice = if caps.cpu_variants() && smallest >= 4 && allowed("lanes") {
        lanes(shape, if smallest >= 8 { 8 } else { 4 })
    } else if smallest >= 8 && allowed("tiles_subgroup") {
        tiles_subgroup(shape, loads(caps))
    } else {
        tiles(shape, loads(caps))
    };
    let (params, grid) = launch(&choice, shape, has_sinks, splits);
    (choice, params, grid)
}

fn launch(choice: &Choice, shape: &Shape, has_sinks: bool, splits: u32) -> (Params, [u32; 3]) {
    let rows = choice.selection.get_u32("GR").unwrap_or(1);
    let row_blocks = shape.group().div_ceil(rows);
    let params = Params { splits, row_blocks, ..shape.params(has_sinks) };
    (params, [splits, shape.num_kv_heads.saturating_mul(row_blocks), shape.num_seqs])
}

/// Number of blocks of at most `most` rows, and rows of a block, that cover the heads of a key head.
fn blocks(shape: &Shape, most: u32) -> (u32, u32) {
    let count = shape.group().div_ceil(most);
    (count, shape.group().div_ceil(count))
}

/// Rows of a workgroup whose queries fit workgroup memory. All heads read the one latent of a token: four of them together, as
/// many as fit.
fn tile_rows(shape: &Shape) -> u32 {
    if shape.head_dim > MAX_VALUE_DIM { 4 } else { (1024 / shape.head_dim).clamp(1, 8) }
}

/// Vectors of keys, or of values, that an invocation has under way. To a CPU more of them are only more to compile: eight
/// take LLVM three times as long as four.
fn loads(caps: &Caps) -> u32 {
    if caps.few_registers || caps.is_cpu { FEW_LOADS } else { LOADS }
}

const LOADS: u32 = 8;
const FEW_LOADS: u32 = 4;

fn tiles(shape: &Shape, loads: u32) -> Choice {
    let rows = blocks(shape, tile_rows(shape)).1;
    let head_dim4 = shape.head_dim.div_ceil(4);
    // At most 64 invocations share the values of a channel: no tile has more keys.
    let value_lanes = shape.value_dim.div_ceil(4).next_power_of_two().max(2);
    let dim_steps = if head_dim4.div_ceil(8).is_multiple_of(2) { loads / 4 } else { 1 };
    Choice {
        file: "attention/decode.wgsl",
        variant: "tiles",
        selection: shape
            .selection()
            .set("GR", rows)
            .set("HEAD_DIM4", head_dim4)
            .set("VALUE_LANES", value_lanes)
            .set("DIM_STEPS", dim_steps)
            .set("VALUE_STEPS", (value_lanes / 2).min(loads)),
        invocations: 128,
        workgroup_bytes: 16 * rows * head_dim4 + 2048 + 32 + 2048 + 512 * rows,
        requires: Requires::NOTHING,
        data: Data::KeysValues { f16: shape.f16 },
    }
}

fn tiles_subgroup(shape: &Shape, loads: u32) -> Choice {
    let portable = tiles(shape, loads);
    let rows = blocks(shape, tile_rows(shape)).1;
    Choice {
        variant: "tiles_subgroup",
        selection: portable.selection.part("dots", "attention/dots_subgroup.wgsl").set("LANES", 8),
        workgroup_bytes: portable.workgroup_bytes - 512 * rows,
        requires: Requires::lanes(8),
        ..portable
    }
}

fn lanes(shape: &Shape, lanes: u32) -> Choice {
    let value_blocks = shape.value_dim.div_ceil(4 * lanes);
    // At most 32 accumulators of four, where one row has fewer.
    let rows = blocks(shape, (32 / value_blocks).clamp(1, lanes)).1;
    Choice {
        file: "attention/decode_lanes.wgsl",
        variant: "lanes",
        selection: shape
            .selection()
            .set("LANES", lanes)
            .set("GR", rows)
            .set("KG", 2)
            .set("VALUE_BLOCKS", value_blocks),
        invocations: lanes,
        workgroup_bytes: 0,
        requires: Requires::lanes(lanes),
        data: Data::KeysValues { f16: shape.f16 },
    }
}

fn variants(shape: &Shape, loads: u32) -> [Choice; 3] {
    [lanes(shape, 8), tiles(shape, loads), tiles_subgroup(shape, loads)]
}

fn choices() -> Vec<Choice> {
    let mut all: Vec<Choice> = Vec::new();
    for problem in problems() {
        let shape = problem.shape();
        let all_loads = [LOADS, FEW_LOADS].into_iter().flat_map(|loads| variants(&shape, loads));
        for choice in all_loads.chain([lanes(&shape, 4)]) {
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
        Problem { name: "small_model", regime: Model, heads: [4, 2, 64, 64], seqs: &[(1, 129)], ..p },
        Problem { name: "one_key", regime: OneTile, heads: [2, 1, 8, 8], ..p },
        Problem {
            name: "ragged_splits",
            regime: PartialTile,
            heads: [4, 2, 64, 64],
            seqs: &[(1, 1), (1, 64), (1, 65), (1, 200)],
            splits: 3,
            ..p
        },
        Problem {
            name: "many_tiles",
            regime: ManyTiles,
            heads: [4, 2, 64, 64],
            seqs: &[(1, 256)],
            splits: 2,
            ..p
        },
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
            seqs: &[(1, 65)],
            f16: true,
            ..p
        },
        Problem {
            name: "many_tiles_f16",
            regime: ManyTiles,
            heads: [4, 2, 64, 64],
            seqs: &[(1, 256)],
            f16: true,
            ..p
        },
        Problem {
            name: "small_model_f16",
            regime: Model,
            heads: [4, 2, 64, 64],
            seqs: &[(1, 129)],
            f16: true,
            ..p
        },
        Problem {
            name: "gqa3_f16",
            regime: PartialTile,
            heads: [3, 1, 64, 64],
            seqs: &[(1, 40)],
            f16: true,
            ..p
        },
        Problem {
            name: "window_sinks",
            regime: PartialTile,
            heads: [8, 1, 32, 32],
            seqs: &[(1, 50), (1, 3)],
            window: Some(16),
            sinks: true,
            ..p
        },
        Problem {
            name: "softcap",
            regime: PartialTile,
            heads: [2, 2, 32, 32],
            seqs: &[(1, 40)],
            softcap: Some(0.5),
            ..p
        },
        Problem {
            name: "gqa7_odd_dims",
            regime: PartialTile,
            heads: [7, 1, 17, 10],
            seqs: &[(1, 40)],
            sinks: true,
            ..p
        },
        Problem {
            name: "odd_dims_f16",
            regime: OneTile,
            heads: [2, 1, 13, 13],
            seqs: &[(1, 9)],
            f16: true,
            ..p
        },
        Problem { name: "gqa12_d128", regime: PartialTile, heads: [12, 1, 128, 128], seqs: &[(1, 70)], ..p },
        Problem {
            name: "d256_d80",
            regime: PartialTile,
            heads: [2, 1, 256, 80],
            seqs: &[(1, 33)],
            window: Some(1),
            ..p
        },
        // Latents with their rotated part: heads in blocks that do not fill the last.
        Problem { name: "latent", regime: PartialTile, heads: [5, 1, 576, 512], seqs: &[(1, 70)], ..p },
        Problem {
            name: "equal_scores",
            regime: PartialTile,
            heads: [4, 2, 64, 64],
            seqs: &[(1, 90)],
            magnitude: 0.0,
            ..p
        },
        Problem {
            name: "large_scores",
            regime: PartialTile,
            heads: [4, 2, 64, 64],
            seqs: &[(1, 90)],
            magnitude: 6.0,
            ..p
        },
    ]
}

fn cases() -> Vec<TestCase> {
    problems()
        .iter()
        .enumerate()
        .map(|(at, problem)| {
            let shape = problem.shape();
            // The third variant differs from the second in a few lines only.
            let (count, loads) = if at < 8 { (3, LOADS) } else { (2, FEW_LOADS) };
            let mut launched: Vec<Choice> = variants(&shape, loads).into_iter().take(count).collect();
            if at == 2 || problem.name == "partial_f16" {
                launched.push(lanes(&shape, 4));
            }
            if at == 2 {
                launched.extend([tiles(&shape, FEW_LOADS), tiles_subgroup(&shape, FEW_LOADS)]);
            }
            launched.into_iter().fold(problem.case(), |case, choice| {
                let (params, grid) = launch(&choice, &shape, problem.sinks, problem.params().splits);
                case.launch(choice, &params, grid)
            })
        })
        .collect()
}

fn bench_problems() -> [Problem; 4] {
    let p = Problem { heads: [32, 8, 128, 128], splits: 64, ..PROBLEM };
    [
        Problem { name: "4/2x64x512", heads: [4, 2, 64, 64], seqs: &[(1, 512)], ..p },
        Problem { name: "32/8x128x512", seqs: &[(1, 512)], ..p },
        Problem { name: "32/8x128x4096", seqs: &[(1, 4096)], ..p },
        Problem { name: "32/8x128x32768", seqs: &[(1, 32768)], ..p },
    ]
}

fn benches() -> Vec<BenchCase> {
    bench_problems()
        .iter()
        .map(|problem| {
            let shape = problem.shape();
            let pairs = u64::from(shape.num_q_heads) * u64::from(shape.max_kv_len);
            prefill::bench(problem, 2 * pairs * u64::from(shape.head_dim + shape.value_dim), bench_launch)
        })
        .collect()
}

fn bench_launch(caps: &Caps, name: &str) -> Vec<Launch> {
    let problem = bench_problems().into_iter().find(|p| p.name == name);
    problem
        .map(|problem| {
            let shape = problem.shape();
            let (choice, params, grid) = select(caps, &shape, false, splits(caps, &shape));
            Launch::new(choice, &params, grid)
        })
        .into_iter()
        .collect()
}

#[cfg(test)]
pub(super) fn tests_workgroup_bytes(caps: &Caps, shape: &Shape) -> u32 {
    select(caps, shape, false, 1).0.workgroup_bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caps::Tier;

    fn shape(heads: [u32; 4], seqs: &'static [(u32, u32)]) -> Shape {
        Problem { heads, seqs, ..PROBLEM }.shape()
    }

    #[test]
    fn small_models_on_a_cpu_need_no_merge() {
        let cpu = Caps { is_cpu: true, tier: Tier::Cpu, ..Caps::baseline() };
        assert_eq!(splits(&cpu, &shape([4, 2, 64, 64], &[(1, 512)])), 1);
        assert!((2..=8).contains(&splits(&cpu, &shape([4, 1, 64, 64], &[(1, 32768)]))));
        assert_eq!(splits(&Caps::baseline(), &shape([32, 8, 128, 128], &[(1, 60)])), 1);
        // A GPU is filled early: 64 workgroups at 512 keys.
        assert_eq!(splits(&Caps::baseline(), &shape([32, 8, 128, 128], &[(1, 512)])), 8);
        assert_eq!(splits(&Caps::baseline(), &shape([32, 8, 128, 128], &[(1, 32768)])), 64);
    }
}

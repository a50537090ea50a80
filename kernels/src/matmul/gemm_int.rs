//! Many rows of quantised activations times a quantised matrix, with the epilogue behind.

pub mod grouped;
mod measured;

use girih_shaders::Selection;

use super::bench::{int_case as bench_case, parse_int as parse_bench};
use super::int::{self, Weights, XRow};
use super::product::{Epilogue, EpilogueKind, Params, Part, Shape, check_result};
use super::tile::{ENOUGH_GROUPS, Plan, Tile};
use super::{or_dummy, reference, split_sum, tuning};
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{BenchCase, Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Launch, Requires};
use crate::error::KernelError;
use crate::quant::{Code, Format, Scale, WeightFormat};
use crate::recorder::Recorder;
use crate::spec::{Kernel, KernelSpec, Tuning, read, read_write};
use crate::twin::TwinCall;

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Codes of x: bytes `[M, B, 32]`, B = ceil(K / 32); zeros from K on.
    pub x_codes: &'a Buffer,
    /// `[M, B]` of the scale (f32) and the sums of both halves of the block (i16).
    pub x_scales: &'a Buffer,
    /// W, all of its rows.
    pub parts: &'a [Part<'a>],
    /// Behind the product.
    pub epilogue: Epilogue<'a>,
    /// Memory of [`scratch_bytes`], if that is not zero.
    pub scratch: Option<&'a Buffer>,
    /// Result `[M, N]`, or `[M, N / 2]` with a gated linear unit.
    pub y: &'a Buffer,
}

const SPEC: KernelSpec = KernelSpec {
    name: "gemm_int",
    bindings: &[
        read("x"),
        read("w"),
        read("w_scales"),
        read("vectors"),
        read("residual"),
        read_write("y"),
        read("x_scales"),
    ],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel = Kernel {
    spec: &SPEC,
    choices,
    cases,
    benches,
    cases_of: Some(cases_of),
    tuning: Some(Tuning { ways: measured::ways, workload: measured::workload }),
    cost: Some(tuning::cost),
};

/// Bytes that a product with these parts of W needs for partial sums; 0 if its channels are not split.
pub fn scratch_bytes(caps: &Caps, shape: Shape, parts: &[Part<'_>]) -> u64 {
    plan(caps, shape, &formats(parts)).scratch_bytes(shape)
}

/// Appends `y = epilogue(x · Wᵀ)`: one dispatch for each part of W, one more where the channels are split.
///
/// # Errors
/// An odd N with a gated linear unit, weights without integers or with groups of neither 16 nor a multiple of 32,
/// buffers that are too short, scratch memory that is missing, and as [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, args: Args<'_>, shape: Shape) -> Result<(), KernelError> {
    let Epilogue { bias, residual, act, .. } = args.epilogue;
    shape.check(SPEC.name, act.is_glu())?;
    if shape.m == 0 {
        return Ok(());
    }
    int::check_codes(SPEC.name, args.x_codes, args.x_scales, shape)?;
    check_result(SPEC.name, &args.epilogue, args.y, [shape.m, shape.n])?;
    let gpu = rec.gpu().clone();
    let plan = plan(rec.caps(), shape, &formats(args.parts));
    let Plan { tile, splits, split_k8 } = plan;
    let split = plan.is_split();
    let y = plan.output(SPEC.name, shape, args.scratch, args.y)?;
    let (epilogue, bias, residual) = if split {
        (EpilogueKind::default(), gpu.dummy()?, gpu.dummy()?)
    } else {
        (args.epilogue.kind(), or_dummy(&gpu, bias)?, or_dummy(&gpu, residual)?)
    };
    for part in args.parts {
        let (format, scales) = part.integers(SPEC.name, &gpu, shape.k)?;
        let y_stride = if split { shape.n } else { act.columns(shape.n) };
        let params = Params { y_stride, split_k8, ..Params::of(shape, part, &args.epilogue) };
        let choice = choice(tile, format, split, epilogue);
        let buffers = [args.x_codes, part.buffer, &scales, &bias, &residual, y, args.x_scales];
        rec.dispatch(&SPEC, choice, &params, &buffers, tile.grid(shape.m, part.rows, splits))?;
    }
    if split {
        split_sum::record(rec, y, args.epilogue, args.y, [splits, shape.m, shape.n])?;
    }
    Ok(())
}

/// 64 x 64.
const LARGE: Tile = Tile::shared([8, 4], [16, 8]);
/// 32 x 64.
const MEDIUM: Tile = Tile::shared([4, 4], [16, 8]);
/// 16 x 32, for few rows.
const FEW: Tile = Tile::shared([4, 2], [16, 4]);
/// 8 x 32.
const FEWEST: Tile = Tile::shared([2, 2], [16, 4]);
/// For a CPU's vector unit: 8 lanes side by side.
const DIRECT: Tile = Tile::direct([8, 2], LANES, LANES);
/// Lanes of [`DIRECT`].
const LANES: u32 = 8;
/// Groups of 8 channels of a block: channels are split between blocks.
const BLOCK_K8: u32 = int::BLOCK / 8;

fn formats(parts: &[Part<'_>]) -> Vec<WeightFormat> {
    parts.iter().map(|part| part.format).collect()
}

/// The measured winner, or what the rule says. Only products of one part are measured.
fn plan(caps: &Caps, shape: Shape, formats: &[WeightFormat]) -> Plan {
    let winner = match formats {
        &[format] => {
            let candidates = || measured::candidates(caps, shape, format);
            caps.winner(SPEC.name, Data::Weights(format), || tuning::class_of_rows(shape), candidates)
        }
        _ => None,
    };
    winner.unwrap_or_else(|| rule(caps, shape, formats))
}

/// One tile for all parts of W, of the formats: one that has failed with any of them is passed over.
fn rule(caps: &Caps, shape: Shape, formats: &[WeightFormat]) -> Plan {
    let allowed = |variant: &str| {
        formats.iter().all(|&format| !caps.is_blocked(SPEC.name, variant, Data::Weights(format)))
    };
    let lanes = caps.subgroup_size.map_or(1, |(smallest, _)| smallest);
    if caps.cpu_variants() && lanes >= LANES && allowed("direct_subgroup") {
        return Plan::whole(DIRECT, shape);
    }
    let fills = |tile: &Tile| tile.groups(shape.m, shape.n) >= ENOUGH_GROUPS;
    let tile = [FEWEST, FEW]
        .into_iter()
        .find(|tile| shape.m <= tile.bm())
        .or_else(|| [LARGE, MEDIUM].into_iter().find(fills))
        .unwrap_or(FEW);
    if allowed("split_k") { Plan::split(caps, tile, shape, BLOCK_K8) } else { Plan::whole(tile, shape) }
}

fn choice(tile: Tile, format: Format, split: bool, epilogue: EpilogueKind) -> Choice {
    let selection = format.apply(Selection::new()).set("TM", tile.tm).set("TN", tile.tn);
    let selection = epilogue.apply(selection);
    if tile.direct {
        return Choice {
            file: "matmul/gemm_int_direct.wgsl",
            variant: "direct_subgroup",
            selection: selection.set("LANES", LANES),
            invocations: LANES,
            workgroup_bytes: 0,
            requires: Requires::lanes(LANES),
            data: Data::Weights(format.into()),
        };
    }
    Choice {
        file: "matmul/gemm_int.wgsl",
        variant: if split { "split_k" } else { "tiled" },
        selection: selection.set("TX", tile.tx).set("TY", tile.ty).set("SPLIT", split),
        invocations: tile.tx * tile.ty,
        workgroup_bytes: 16 * (3 * (tile.bm() + tile.bn()) + 2 * (tile.ty + tile.tn)),
        requires: Requires::NOTHING,
        data: Data::Weights(format.into()),
    }
}

/// Through workgroup memory.
const TILED: [Tile; 4] = [LARGE, MEDIUM, FEW, FEWEST];

fn choices() -> Vec<Choice> {
    let plain = EpilogueKind::default();
    let mut all = Vec::new();
    for tile in TILED.into_iter().chain([DIRECT]) {
        all.extend(int::FORMATS.map(|format| choice(tile, format, false, plain)));
        if !tile.direct {
            all.extend(int::FORMATS.map(|format| choice(tile, format, true, plain)));
        }
        for act in 0..9 {
            let epilogue = EpilogueKind { act, glu: act > 0 && act != 5, bias: true, residual: true };
            all.push(choice(tile, Format::Q4_0, false, epilogue));
        }
    }
    all
}

/// The definition: blocks in integers, their sums in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let w =
        Weights::read(call.selection, &call.get::<u32>(1), &call.get::<u32>(2), p.num_n as usize, p.num_k);
    let (codes, scales): (Vec<i8>, Vec<[u32; 2]>) = (call.get(0), call.get(6));
    let finish = reference::finish_product(call, &p);
    let split = call.selection.get_bool("SPLIT");
    let share = if split { 8 * p.split_k8 as usize } else { usize::MAX };
    let mut y: Vec<f32> = call.get(5);
    for row in 0..p.num_m as usize {
        let x = XRow::read(&codes, &scales, row, p.num_k as usize);
        if !split {
            finish.store(&mut y, row, p.n_base as usize, &w.products(&x));
            continue;
        }
        for s in 0..(p.num_k as usize).div_ceil(share) {
            let sums = w.products(&x.only(s * share..(s + 1) * share));
            let at = (s * p.num_m as usize + row) * p.y_stride as usize + p.n_base as usize;
            for (y, sum) in y[at..].iter_mut().zip(sums) {
                *y = sum as f32;
            }
        }
    }
    call.put(5, &y);
}

/// A case with weights of a format.
fn case(
    (name, regime): (&str, Regime),
    [m, n, k]: [u32; 3],
    format: Format,
    epilogue: EpilogueKind,
    tiles: &[Tile],
    splits: u32,
) -> TestCase {
    let shape = Shape { m, n, k };
    let plan = |tile: Tile| match splits {
        1 => Plan::whole(tile, shape),
        _ => Plan::divided(tile, shape, splits, BLOCK_K8),
    };
    let splits = plan(tiles[0]).splits;
    let y_stride = epilogue.columns(n);
    let (codes, scales) = int::seeded_weights(n, k, format, 2);
    let (x_codes, x_scales) = int::seeded_codes(m, k, n.is_multiple_of(2), 4);
    let tolerance = Tolerance::f32_sum(k as usize, 8.0 * if epilogue.glu { 10.0 } else { 1.0 });
    let mut case = TestCase::new(name, regime, tolerance)
        .input(&x_codes)
        .input(&codes)
        .input(&scales)
        .input(&seeded(n as usize, 6))
        .input(&seeded((m * y_stride) as usize, 7))
        .output((splits * m * y_stride) as usize)
        .input(&x_scales);
    for &tile in tiles {
        let choice = choice(tile, format, splits > 1, epilogue);
        let params = Params { split_k8: plan(tile).split_k8, ..Params::of_case(shape, epilogue) };
        case = case.launch(choice, &params, tile.grid(m, n, splits));
    }
    case
}

fn cases_of(format: WeightFormat) -> Vec<TestCase> {
    let WeightFormat::Quant(format) = format else { return Vec::new() };
    let (plain, named) = (EpilogueKind::default(), ("any_format", Regime::PartialTile));
    let tiles: Vec<Tile> = TILED.into_iter().chain(measured::DIRECT_TILES).collect();
    vec![
        case(named, [35, 67, 544], format, plain, &tiles, 1),
        case(named, [35, 67, 544], format, plain, &TILED, 2),
    ]
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let plain = EpilogueKind::default();
    let full = |act, glu| EpilogueKind { act, glu, bias: true, residual: true };
    // Drivers for CPUs take seconds to compile the larger tiles.
    let two = [FEW, DIRECT];
    let all: Vec<Tile> = TILED.into_iter().chain(measured::DIRECT_TILES).collect();
    let f32_row = Format { scale: Scale::F32, ..Format::asymmetric(Code::Int4, Format::ROW) };
    vec![
        case(("tiles", PartialTile), [70, 130, 64], Format::Q4_0, full(1, true), &all, 1),
        case(("one_tile", OneTile), [5, 6, 64], Format::Q4_0, plain, &two, 1),
        case(("llama_1b", Model), [5, 40, 2048], Format::Q4_0, plain, &two, 1),
        case(("q4_k_tiles", PartialTile), [70, 67, 264], Format::Q4_K, plain, &[MEDIUM], 1),
        case(("many_tiles", ManyTiles), [133, 66, 96], Format::Q4_0, full(2, false), &two, 1),
        case(("glu", ManyTiles), [33, 130, 40], Format::Q8_0, full(1, true), &two, 1),
        case(("odd", PartialTile), [16, 71, 131], Format::Q4_1, full(5, false), &two, 1),
        case(("q4_k", PartialTile), [5, 34, 520], Format::Q4_K, plain, &[DIRECT], 1),
        case(("q5_k", PartialTile), [16, 33, 288], Format::Q5_K, plain, &two, 1),
        case(("q6_k", PartialTile), [9, 34, 288], Format::Q6_K, plain, &two, 1),
        case(("iq4_nl", PartialTile), [5, 34, 96], Format::IQ4_NL, plain, &[DIRECT], 1),
        case(("nvfp4", PartialTile), [5, 34, 40], Format::NVFP4, plain, &[DIRECT], 1),
        case(("gpt_oss_20b", Model), [5, 40, 2880], Format::MXFP4, plain, &[DIRECT], 1),
        case(("qoq", PartialTile), [16, 33, 320], Format::QOQ, plain, &[FEW], 1),
        case(("splits", ManyTiles), [9, 66, 320], Format::Q4_0, plain, &[FEW, FEWEST], 3),
        case(("splits_one_tile", OneTile), [5, 6, 96], Format::Q4_0, plain, &[FEWEST], 2),
        case(("splits_partial", PartialTile), [70, 67, 264], Format::Q4_1, plain, &[MEDIUM, FEWEST], 3),
        case(("splits_llama_1b", Model), [5, 40, 2048], Format::Q4_0, plain, &[FEWEST], 8),
        case(("row", PartialTile), [16, 33, 96], f32_row, plain, &two, 1),
    ]
}

fn bench_launches(caps: &Caps, name: &str) -> Vec<Launch> {
    if !caps.integer_dot {
        return Vec::new(); // floats are multiplied instead
    }
    let Some((shape, format, _)) = parse_bench(name) else { return Vec::new() };
    let mut plans = vec![plan(caps, shape, &[format.into()])];
    if plans[0].tile.direct {
        let passed_over = [Tile { tm: 8, tn: 4, ..DIRECT }, Tile { tm: 16, tn: 2, ..DIRECT }];
        plans.extend(passed_over.map(|tile| Plan::whole(tile, shape)));
    }
    let launch = |Plan { tile, splits, split_k8 }: Plan| {
        let params = Params { split_k8, ..Params::plain(shape, shape.n) };
        let choice = choice(tile, format, splits > 1, EpilogueKind::default());
        Launch::new(choice, &params, tile.grid(shape.m, shape.n, splits))
    };
    plans.into_iter().map(launch).collect()
}

fn benches() -> Vec<BenchCase> {
    let mut all = Vec::new();
    for shape in [[8, 4096, 4096], [512, 1024, 1024]] {
        for format in [Format::Q4_0, Format::Q8_0, Format::MXFP4] {
            all.push(bench_case(shape, format, false, bench_launches));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tier;

    #[test]
    fn selects_by_capability_and_shape() {
        let plan = |caps: &Caps, m, n, k| plan(caps, Shape { m, n, k }, &[Format::Q4_0.into()]);
        let baseline = Caps::baseline();
        assert_eq!(plan(&baseline, 512, 4096, 4096), Plan { tile: LARGE, splits: 1, split_k8: 512 });
        assert_eq!(plan(&baseline, 200, 1280, 256).tile, MEDIUM);
        assert_eq!(plan(&baseline, 16, 4096, 4096), Plan { tile: FEW, splits: 4, split_k8: 128 });
        assert_eq!(plan(&baseline, 8, 4096, 4096), Plan { tile: FEWEST, splits: 4, split_k8: 128 });
        assert_eq!(plan(&baseline, 5, 768, 768), Plan { tile: FEWEST, splits: 3, split_k8: 32 });
        let blocked = Caps { blocked: ["gemm_int/split_k".into()].into(), ..baseline.clone() };
        assert_eq!(plan(&blocked, 8, 4096, 4096), Plan { tile: FEWEST, splits: 1, split_k8: 512 });
        let mut cpu = Caps { subgroup_size: Some((8, 8)), tier: Tier::Cpu, is_cpu: true, ..baseline };
        assert_eq!(plan(&cpu, 512, 4096, 4096).tile, DIRECT);
        cpu.blocked.insert("gemm_int/direct_subgroup".into());
        assert_eq!(plan(&cpu, 16, 4096, 4096).tile, FEW);
    }

    #[test]
    fn every_choice_fits_the_baseline() {
        let fits = |choice: Choice| {
            let fits = choice.workgroup_bytes <= 16 << 10 && choice.invocations <= 128;
            assert!(fits, "{}", choice.selection);
        };
        choices().into_iter().for_each(fits);
        let baseline = Caps::baseline();
        let gpu = Caps { subgroup_size: Some((32, 32)), tier: Tier::Subgroup, ..baseline.clone() };
        let cpu = Caps { subgroup_size: Some((8, 8)), tier: Tier::Cpu, is_cpu: true, ..baseline.clone() };
        for caps in [baseline, gpu, cpu] {
            for (m, n) in
                [1, 5, 16, 17, 64, 200, 512].into_iter().flat_map(|m| [2, 768, 4096].map(|n| (m, n)))
            {
                let plan = plan(&caps, Shape { m, n, k: 4096 }, &[Format::Q4_0.into()]);
                fits(choice(plan.tile, Format::Q4_0, plan.is_split(), EpilogueKind::default()));
            }
        }
    }
}

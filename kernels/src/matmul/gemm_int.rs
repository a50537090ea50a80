//! Many rows of quantised activations times a quantised matrix, with the epilogue behind.

mod measured;

use girih_shaders::Selection;

use super::bench::{int_case as bench_case, parse_int as parse_bench};
use super::int::{self, Weights, XRow};
use super::product::{Epilogue, EpilogueKind, Params, Part, Shape, check_result};
use super::tile::{ENOUGH_GROUPS, Tile};
use super::{or_dummy, reference, tuning};
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

/// Appends `y = epilogue(x · Wᵀ)`, one dispatch for each part of W.
///
/// # Errors
/// An odd N with a gated linear unit, weights without integers or with groups of neither 16 nor a multiple of 32,
/// buffers that are too short, and as [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, args: Args<'_>, shape: Shape) -> Result<(), KernelError> {
    let Epilogue { bias, residual, act, .. } = args.epilogue;
    shape.check(SPEC.name, act.is_glu())?;
    if shape.m == 0 {
        return Ok(());
    }
    int::check_codes(SPEC.name, args.x_codes, args.x_scales, shape)?;
    check_result(SPEC.name, &args.epilogue, args.y, [shape.m, shape.n])?;
    let gpu = rec.gpu().clone();
    let (bias, residual) = (or_dummy(&gpu, bias)?, or_dummy(&gpu, residual)?);
    for part in args.parts {
        let (format, scales) = part.integers(SPEC.name, &gpu, shape.k)?;
        let tile = select(rec.caps(), Shape { n: part.rows, ..shape }, format);
        let params = Params::of(shape, part, &args.epilogue);
        let choice = choice(tile, format, args.epilogue.kind());
        let buffers = [args.x_codes, part.buffer, &scales, &bias, &residual, args.y, args.x_scales];
        rec.dispatch(&SPEC, choice, &params, &buffers, tile.grid(shape.m, part.rows, 1))?;
    }
    Ok(())
}

/// 64 x 64.
const LARGE: Tile = Tile::shared([8, 4], [16, 8]);
/// 32 x 64.
const MEDIUM: Tile = Tile::shared([4, 4], [16, 8]);
/// 16 x 32, for few rows.
const SMALL: Tile = Tile::shared([4, 2], [16, 4]);
/// For a CPU's vector unit: 8 lanes side by side.
const DIRECT: Tile = Tile::direct([8, 2], LANES, LANES);
/// Lanes of [`DIRECT`].
const LANES: u32 = 8;

/// The measured winner, or what the rule says.
fn select(caps: &Caps, shape: Shape, format: Format) -> Tile {
    let candidates = || measured::candidates(caps, shape, format);
    let class = || tuning::class_of_rows(shape);
    let winner = caps.winner(SPEC.name, Data::Weights(format.into()), class, candidates);
    winner.unwrap_or_else(|| rule(caps, shape, format))
}

fn rule(caps: &Caps, shape: Shape, format: Format) -> Tile {
    let data = Data::Weights(format.into());
    let lanes = caps.subgroup_size.map_or(1, |(smallest, _)| smallest);
    if caps.cpu_variants() && lanes >= LANES && !caps.is_blocked(SPEC.name, "direct_subgroup", data) {
        return DIRECT;
    }
    let groups = |tile: Tile| tile.groups(shape.m, shape.n);
    if shape.m <= SMALL.bm() || groups(MEDIUM) < ENOUGH_GROUPS.into() {
        SMALL
    } else if groups(LARGE) < ENOUGH_GROUPS.into() {
        MEDIUM
    } else {
        LARGE
    }
}

fn choice(tile: Tile, format: Format, epilogue: EpilogueKind) -> Choice {
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
        variant: "tiled",
        selection: selection.set("TX", tile.tx).set("TY", tile.ty),
        invocations: tile.tx * tile.ty,
        workgroup_bytes: 16 * (3 * (tile.bm() + tile.bn()) + 2 * (tile.ty + tile.tn)),
        requires: Requires::NOTHING,
        data: Data::Weights(format.into()),
    }
}

fn choices() -> Vec<Choice> {
    let plain = EpilogueKind::default();
    let mut all = Vec::new();
    for tile in [LARGE, MEDIUM, SMALL, DIRECT] {
        all.extend(int::FORMATS.map(|format| choice(tile, format, plain)));
        for act in 0..6 {
            let epilogue = EpilogueKind { act, glu: (1..5).contains(&act), bias: true, residual: true };
            all.push(choice(tile, Format::Q4_0, epilogue));
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
    let mut y: Vec<f32> = call.get(5);
    for row in 0..p.num_m as usize {
        let x = XRow::read(&codes, &scales, row, p.num_k as usize);
        finish.store(&mut y, row, p.n_base as usize, &w.products(&x));
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
) -> TestCase {
    let shape = Shape { m, n, k };
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
        .output((m * y_stride) as usize)
        .input(&x_scales);
    for &tile in tiles {
        let choice = choice(tile, format, epilogue);
        case = case.launch(choice, &Params::of_case(shape, epilogue), tile.grid(m, n, 1));
    }
    case
}

fn cases_of(format: WeightFormat) -> Vec<TestCase> {
    let WeightFormat::Quant(format) = format else { return Vec::new() };
    let tiles: Vec<Tile> = [LARGE, MEDIUM, SMALL].into_iter().chain(measured::DIRECT_TILES).collect();
    let named = ("any_format", Regime::PartialTile);
    vec![case(named, [35, 67, 544], format, EpilogueKind::default(), &tiles)]
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let plain = EpilogueKind::default();
    let full = |act, glu| EpilogueKind { act, glu, bias: true, residual: true };
    // Drivers for CPUs take seconds to compile the larger tiles.
    let two = [SMALL, DIRECT];
    let f32_row = Format { scale: Scale::F32, ..Format::asymmetric(Code::Int4, Format::ROW) };
    vec![
        case(
            ("tiles", PartialTile),
            [70, 130, 64],
            Format::Q4_0,
            full(1, true),
            &[LARGE, MEDIUM, SMALL, DIRECT, measured::DIRECT_TILES[1], measured::DIRECT_TILES[2]],
        ),
        case(("one_tile", OneTile), [5, 6, 64], Format::Q4_0, plain, &two),
        case(("llama_1b", Model), [5, 40, 2048], Format::Q4_0, plain, &two),
        case(("q4_k_tiles", PartialTile), [70, 67, 264], Format::Q4_K, plain, &[MEDIUM]),
        case(("many_tiles", ManyTiles), [133, 66, 96], Format::Q4_0, full(2, false), &two),
        case(("glu", ManyTiles), [33, 130, 40], Format::Q8_0, full(1, true), &two),
        case(("odd", PartialTile), [16, 71, 131], Format::Q4_1, full(5, false), &two),
        case(("q4_k", PartialTile), [5, 34, 520], Format::Q4_K, plain, &[DIRECT]),
        case(("q5_k", PartialTile), [16, 33, 288], Format::Q5_K, plain, &two),
        case(("q6_k", PartialTile), [9, 34, 288], Format::Q6_K, plain, &two),
        case(("iq4_nl", PartialTile), [5, 34, 96], Format::IQ4_NL, plain, &[DIRECT]),
        case(("nvfp4", PartialTile), [5, 34, 40], Format::NVFP4, plain, &[DIRECT]),
        case(("gpt_oss_20b", Model), [5, 40, 2880], Format::MXFP4, plain, &[DIRECT]),
        case(("qoq", PartialTile), [16, 33, 320], Format::QOQ, plain, &[SMALL]),
        case(("row", PartialTile), [16, 33, 96], f32_row, plain, &two),
    ]
}

fn bench_launches(caps: &Caps, name: &str) -> Vec<Launch> {
    let Some((shape, format, _)) = parse_bench(name) else { return Vec::new() };
    let mut tiles = vec![select(caps, shape, format)];
    if tiles[0].direct {
        tiles.extend([Tile { tm: 8, tn: 4, ..DIRECT }, Tile { tm: 16, tn: 2, ..DIRECT }]);
    }
    let launch = |tile: Tile| Launch {
        choice: choice(tile, format, EpilogueKind::default()),
        params: bytemuck::bytes_of(&Params::plain(shape, shape.n)).to_vec(),
        grid: tile.grid(shape.m, shape.n, 1),
    };
    tiles.into_iter().map(launch).collect()
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
        let baseline = Caps::baseline();
        let shape = |m, n, k| Shape { m, n, k };
        assert_eq!(select(&baseline, shape(512, 4096, 4096), Format::Q4_0), LARGE);
        assert_eq!(select(&baseline, shape(200, 1280, 256), Format::Q4_0), MEDIUM);
        assert_eq!(select(&baseline, shape(16, 4096, 4096), Format::Q4_0), SMALL);
        let mut cpu = Caps { subgroup_size: Some((8, 8)), tier: Tier::Cpu, is_cpu: true, ..baseline };
        assert_eq!(select(&cpu, shape(512, 4096, 4096), Format::Q4_0), DIRECT);
        cpu.blocked.insert("gemm_int/direct_subgroup".into());
        assert_eq!(select(&cpu, shape(16, 4096, 4096), Format::Q4_0), SMALL);
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
                fits(choice(
                    select(&caps, Shape { m, n, k: 4096 }, Format::Q4_0),
                    Format::Q4_0,
                    EpilogueKind::default(),
                ));
            }
        }
    }
}

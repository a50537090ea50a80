//! The products of many quantised tokens with the experts that they go to: rows of x in tiles, each of one expert.

use super::super::experts::{self, ExpertShape, GroupedArgs, XRows};
use super::super::gemm::grouped;
use super::super::int::{self, Weights, XRow};
use super::super::or_dummy;
use super::super::product::{EpilogueKind, Params};
use super::super::tile::Tile;
use super::{DIRECT, FEW, FEWEST, LANES, LARGE, MEDIUM};
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Launch};
use crate::error::KernelError;
use crate::quant::{Format, WeightFormat};
use crate::recorder::Recorder;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

const SPEC: KernelSpec = KernelSpec {
    name: "grouped_gemm_int",
    bindings: &[
        read("x"),
        read("w"),
        read("w_scales"),
        read("vectors"),
        read("residual"),
        read_write("y"),
        read("x_scales"),
        read("groups"),
    ],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel = Kernel {
    spec: &SPEC,
    choices,
    cases,
    benches: experts::bench::grouped_int,
    cases_of: Some(cases_of),
    tuning: None,
    cost: Some(experts::grouped_cost),
};

/// Workgroups along x.
///
/// # Errors
/// No tile of such a height.
pub fn columns(
    caps: &Caps,
    shape: ExpertShape,
    format: WeightFormat,
    height: u32,
) -> Result<u32, KernelError> {
    Ok(shape.n.div_ceil(tile(caps, format, height)?.bn()))
}

/// The tile for groups of a height.
fn tile(caps: &Caps, format: WeightFormat, height: u32) -> Result<Tile, KernelError> {
    let allowed = |variant: &str| !caps.is_blocked(SPEC.name, variant, Data::Weights(format));
    let lanes = caps.subgroup_size.map_or(1, |(smallest, _)| smallest);
    if caps.cpu_variants() && lanes >= LANES && allowed("direct_subgroup") && height <= DIRECT.bm() {
        return Ok(DIRECT);
    }
    let found = [FEWEST, FEW, MEDIUM, LARGE].into_iter().find(|tile| height <= tile.bm());
    let (field, must_be) = ("rows of a tile", "at most 64");
    found.ok_or(KernelError::BadParam { kernel: SPEC.name, field, got: height.into(), must_be })
}

/// Appends `y[s] = epilogue(x · W[e]ᵀ)` of each slot s, whose expert is e; one dispatch for each part of W. `args.x` holds
/// the codes of x, `x_scales` what belongs to its blocks.
///
/// # Errors
/// Shapes and parts that do not fit, buffers that are too short, a weighted sum, weights that are no integers, tiles of more than
/// 64 rows, and as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: GroupedArgs<'_>,
    x_scales: &Buffer,
    shape: ExpertShape,
    x: XRows,
) -> Result<(), KernelError> {
    let kernel = SPEC.name;
    experts::check_grouped(kernel, &args, shape, x)?;
    let codes = super::Shape { m: shape.x_rows(x) as u32, ..shape.of_slot() };
    int::check_codes(kernel, args.x, x_scales, codes)?;
    let gpu = rec.gpu().clone();
    let bias = or_dummy(&gpu, args.epilogue.bias)?;
    let none = gpu.dummy()?;
    for part in args.parts {
        let (format, scales) = part.integers(kernel, &gpu, shape.k)?;
        let tile = tile(rec.caps(), part.format, args.height)?;
        let params = Params { slots_at: 4 * args.max_tiles, ..shape.params(x, part, &args.epilogue) };
        let choice = choice(tile, format, args.epilogue.kind());
        let buffers = [args.x, part.buffer, &scales, &bias, &none, args.y, x_scales, args.groups];
        rec.dispatch(&SPEC, choice, &params, &buffers, args.grid.clone())?;
    }
    Ok(())
}

/// What is launched for tiles of a height, if that is the one for the shape.
pub(in super::super) fn bench_launch(
    caps: &Caps,
    shape: ExpertShape,
    format: Format,
    height: u32,
    tiles: u32,
) -> Option<Launch> {
    if height != grouped::tile_height(caps, shape) {
        return None;
    }
    let tile = tile(caps, format.into(), height).ok()?;
    let params = Params { slots_at: 4 * tiles, ..shape.plain_params(XRows::Tokens) };
    let choice = choice(tile, format, EpilogueKind::default());
    Some(Launch::new(choice, &params, [shape.n.div_ceil(tile.bn()), tiles, 1]))
}

fn choice(tile: Tile, format: Format, epilogue: EpilogueKind) -> Choice {
    let mut choice = super::choice(tile, format, false, epilogue);
    choice.selection =
        choice.selection.part("tile_rows", "matmul/grouped_int.wgsl").part("bias", "matmul/bias_expert.wgsl");
    choice
}

/// The definition: blocks in integers, their sums in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let rows = (p.num_experts * p.num_n) as usize;
    let w = Weights::read(call.selection, &call.get::<u32>(1), &call.get::<u32>(2), rows, p.num_k);
    let (codes, scales): (Vec<i8>, Vec<[u32; 2]>) = (call.get(0), call.get(6));
    let product = |row: usize, of: std::ops::Range<usize>| {
        w.products_of(of, &XRow::read(&codes, &scales, row, p.num_k as usize))
    };
    experts::grouped_twin(call, p, 7, product);
}

const TILES: [Tile; 5] = [FEWEST, FEW, MEDIUM, LARGE, DIRECT];

fn choices() -> Vec<Choice> {
    let mut all = Vec::new();
    for tile in TILES {
        all.extend(int::FORMATS.map(|format| choice(tile, format, EpilogueKind::default())));
        for act in (1..9).filter(|&act| act != 5) {
            let epilogue = EpilogueKind { act, glu: true, bias: true, residual: false };
            all.push(choice(tile, Format::Q4_0, epilogue));
        }
    }
    all
}

/// A case with the experts from `first` on.
fn case(
    (name, regime): (&str, Regime),
    (shape, format): (ExpertShape, Format),
    (epilogue, x): (EpilogueKind, XRows),
    first: u32,
    tiles: &[Tile],
) -> Vec<TestCase> {
    let ExpertShape { experts, n, k, .. } = shape;
    let here = experts - first;
    let (codes, scales) = int::seeded_weights(here * n, k, format, 2);
    let (x_codes, x_scales) = int::seeded_codes(shape.x_rows(x) as u32, k, n.is_multiple_of(2), 4);
    let y_len = shape.num_slots() as usize * epilogue.columns(n) as usize;
    let routes = experts::seeded_routes(shape);
    let tolerance = Tolerance::f32_sum(k as usize, 8.0 * if epilogue.glu { 20.0 } else { 1.0 });
    let mut cases: Vec<(u32, TestCase, u32)> = Vec::new();
    for &tile in tiles {
        if !cases.iter().any(|(height, ..)| *height == tile.bm()) {
            let (groups, count) = experts::seeded_groups(&routes, experts, tile.bm());
            let name = format!("{name}_{}", tile.bm());
            let case = TestCase::new(name, regime, tolerance)
                .input(&x_codes)
                .input(&codes)
                .input(&scales)
                .input(&seeded((experts * n) as usize, 3))
                .input(&[0.0f32; 4])
                .output(y_len)
                .input(&x_scales)
                .input(&groups);
            cases.push((tile.bm(), case, count));
        }
    }
    let of_height = |(height, mut case, count): (u32, TestCase, u32)| {
        for &tile in tiles.iter().filter(|tile| tile.bm() == height) {
            let params = Params {
                first_expert: first,
                num_experts: here,
                slots_at: 4 * count,
                ..shape.params_of_case(x, epilogue)
            };
            let grid = [n.div_ceil(tile.bn()), count, 1];
            case = case.launch(choice(tile, format, epilogue), &params, grid);
        }
        case
    };
    cases.into_iter().map(of_height).collect()
}

fn cases_of(format: WeightFormat) -> Vec<TestCase> {
    let WeightFormat::Quant(format) = format else { return Vec::new() };
    let shape = ExpertShape { tokens: 9, slots: 2, experts: 4, n: 34, k: 288 };
    let glu = EpilogueKind { act: 1, glu: true, bias: false, residual: false };
    case(("any_format", Regime::PartialTile), (shape, format), (glu, XRows::Tokens), 0, &TILES)
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    use XRows::{Slots, Tokens};
    let plain = EpilogueKind::default();
    let glu = |act| EpilogueKind { act, glu: true, bias: true, residual: false };
    let biased = EpilogueKind { act: 0, glu: false, bias: true, residual: false };
    let shape = |[tokens, slots, experts]: [u32; 3], n, k| ExpertShape { tokens, slots, experts, n, k };
    let few = [FEWEST, MEDIUM, DIRECT];
    let mut cases = Vec::new();
    let mut add = |of, what, how, first, tiles: &[Tile]| cases.extend(case(of, what, how, first, tiles));
    add(("one_expert", OneTile), (shape([5, 1, 1], 6, 32), Format::Q4_0), (plain, Tokens), 0, &TILES);
    add(("odd", PartialTile), (shape([37, 3, 5], 71, 131), Format::Q8_0), (biased, Tokens), 0, &few);
    add(("slots", PartialTile), (shape([19, 2, 6], 66, 45), Format::Q4_0), (biased, Slots), 0, &few);
    add(("second_part", PartialTile), (shape([21, 3, 7], 34, 96), Format::Q4_0), (glu(6), Tokens), 3, &few);
    // Every reader of weights in every regime. The model is OLMoE's down projection.
    for (name, regime, dims, n, k) in [
        ("one_tile", OneTile, [3, 2, 3], 6, 32),
        ("partial_tile", PartialTile, [11, 3, 8], 70, 96),
        ("many_tiles", ManyTiles, [40, 2, 5], 130, 64),
        ("olmoe", Model, [6, 8, 16], 66, 1024),
    ] {
        for format in [Format::Q4_0, Format::MXFP4] {
            let name = format!("{format}_{name}");
            cases.extend(case(
                (&name, regime),
                (shape(dims, n, k), format),
                (plain, Slots),
                0,
                &[MEDIUM, DIRECT],
            ));
        }
    }
    cases
}

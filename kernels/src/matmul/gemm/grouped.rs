//! The products of many tokens with the experts that they go to: rows of x in tiles, each of one expert.

use super::super::experts::{self, ExpertShape, GroupedArgs, XRows};
use super::super::product::{EpilogueKind, Params};
use super::super::tile::Tile;
use super::super::{QUANT_FORMATS, WeightFormat, or_dummy, reference};
use super::{DIRECT, DIRECT_SUBGROUP_4, DIRECT_SUBGROUP_8, FEW, FEWEST, MEDIUM, SMALL};
use crate::caps::Caps;
use crate::case::{Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Launch};
use crate::error::KernelError;
use crate::quant::Format;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

const SPEC: KernelSpec = KernelSpec {
    name: "grouped_gemm",
    bindings: &[
        read("x"),
        read("w"),
        read("w_scales"),
        read("vectors"),
        read("residual"),
        read_write("y"),
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
    benches: experts::bench::grouped,
    cases_of: Some(cases_of),
    tuning: None,
    cost: Some(experts::grouped_cost),
};

/// Rows of the tiles that suit a product: `groups` are made for them.
pub fn tile_height(caps: &Caps, shape: ExpertShape) -> u32 {
    if caps.cpu_variants() {
        let shares = caps.subgroup_size.is_some_and(|(smallest, _)| smallest >= DIRECT_SUBGROUP_4.lanes);
        return if shares { DIRECT_SUBGROUP_8.bm() } else { DIRECT.bm() };
    }
    let rows = shape.num_slots() as f64 / shape.chosen().max(1.0);
    [FEWEST, FEW, SMALL]
        .into_iter()
        .map(Tile::bm)
        .find(|&bm| rows <= 1.5 * f64::from(bm))
        .unwrap_or(MEDIUM.bm())
}

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
    let direct = match lanes {
        8.. if allowed("direct_subgroup") => DIRECT_SUBGROUP_8,
        4.. if allowed("direct_subgroup") => DIRECT_SUBGROUP_4,
        _ => DIRECT,
    };
    if caps.cpu_variants() && allowed(variant(direct)) && height <= direct.bm() {
        return Ok(direct);
    }
    let found = [FEWEST, FEW, SMALL, MEDIUM].into_iter().find(|tile| height <= tile.bm());
    let must_be = "at most 64";
    found.ok_or(KernelError::BadParam {
        kernel: SPEC.name,
        field: "rows of a tile",
        got: height.into(),
        must_be,
    })
}

fn variant(tile: Tile) -> &'static str {
    if tile.lanes > 1 { "direct_subgroup" } else { "direct" }
}

/// Appends `y[s] = epilogue(x · W[e]ᵀ)` of each slot s, whose expert is e; one dispatch for each part of W.
///
/// # Errors
/// Shapes and parts that do not fit, buffers that are too short, a weighted sum, tiles of another height than
/// [`tile_height`] may give, and as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: GroupedArgs<'_>,
    shape: ExpertShape,
    x: XRows,
) -> Result<(), KernelError> {
    let kernel = SPEC.name;
    experts::check_grouped(kernel, &args, shape, x)?;
    let x_bytes = rows::product([4, shape.x_rows(x), shape.k.into()]);
    rows::check_sizes(kernel, [("x", Some(args.x), x_bytes)])?;
    let gpu = rec.gpu().clone();
    let bias = or_dummy(&gpu, args.epilogue.bias)?;
    let none = gpu.dummy()?;
    for part in args.parts {
        let tile = tile(rec.caps(), part.format, args.height)?;
        let params = Params { slots_at: 4 * args.max_tiles, ..shape.params(x, part, &args.epilogue) };
        let choice = choice(tile, shape, part.format, args.epilogue.kind());
        let scales = part.scales(kernel, &gpu, shape.k)?;
        let buffers = [args.x, part.buffer, &scales, &bias, &none, args.y, args.groups];
        rec.dispatch(&SPEC, choice, &params, &buffers, args.grid.clone())?;
    }
    Ok(())
}

/// What is launched for tiles of a height, if that is the one for the shape.
pub(in super::super) fn bench_launch(
    caps: &Caps,
    shape: ExpertShape,
    format: WeightFormat,
    height: u32,
    tiles: u32,
) -> Option<Launch> {
    if height != tile_height(caps, shape) {
        return None;
    }
    let tile = tile(caps, format, height).ok()?;
    let params = Params { slots_at: 4 * tiles, ..shape.plain_params(XRows::Tokens) };
    let choice = choice(tile, shape, format, EpilogueKind::default());
    Some(Launch::new(choice, &params, [shape.n.div_ceil(tile.bn()), tiles, 1]))
}

fn choice(tile: Tile, shape: ExpertShape, format: WeightFormat, epilogue: EpilogueKind) -> Choice {
    let mut choice = super::choice(tile, shape.of_slot(), format, false, epilogue);
    choice.selection = choice
        .selection
        .part("tile_rows", "matmul/grouped_float.wgsl")
        .part("bias", "matmul/bias_expert.wgsl");
    choice
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let (num_k, padded) = (p.num_k as usize, 8 * p.num_k8 as usize);
    let w = reference::weights(call, [1, 2], p.num_k);
    let x: Vec<f64> = call.get::<f32>(0).into_iter().map(f64::from).collect();
    let product = |row: usize, of: std::ops::Range<usize>| {
        let x = &x[row * num_k..][..num_k];
        w[of.start * padded..of.end * padded].chunks_exact(padded).map(|w| reference::dot(x, w)).collect()
    };
    experts::grouped_twin(call, p, 6, product);
}

const TILES: [Tile; 7] = [FEWEST, FEW, SMALL, MEDIUM, DIRECT, DIRECT_SUBGROUP_8, DIRECT_SUBGROUP_4];

fn choices() -> Vec<Choice> {
    let shape = |k| ExpertShape { tokens: 64, slots: 2, experts: 4, n: 64, k };
    let mut all = Vec::new();
    for tile in TILES {
        let formats = WeightFormat::DENSE.into_iter().chain(QUANT_FORMATS.map(WeightFormat::from));
        for (i, format) in formats.enumerate() {
            all.push(choice(tile, shape(64 - i as u32 % 2), format, EpilogueKind::default()));
        }
        for act in (1..9).filter(|&act| act != 5) {
            let epilogue = EpilogueKind { act, glu: true, bias: true, residual: false };
            all.push(choice(tile, shape(64), WeightFormat::F16, epilogue));
        }
    }
    all
}

/// A case with the experts from `first` on.
fn case(
    (name, regime): (&str, Regime),
    (shape, format): (ExpertShape, WeightFormat),
    (epilogue, x): (EpilogueKind, XRows),
    first: u32,
    tiles: &[Tile],
) -> Vec<TestCase> {
    let ExpertShape { experts, n, k, .. } = shape;
    let here = experts - first;
    let [weights, scales] = reference::seeded_weights(here * n, k, format, 2);
    let y_len = shape.num_slots() as usize * epilogue.columns(n) as usize;
    let routes = experts::seeded_routes(shape);
    let scale = 4.0 * if epilogue.glu { 20.0 } else { 1.0 };
    let mut cases: Vec<(u32, TestCase, u32)> = Vec::new();
    for &tile in tiles {
        if !cases.iter().any(|(height, ..)| *height == tile.bm()) {
            let (groups, count) = experts::seeded_groups(&routes, experts, tile.bm());
            let name = format!("{name}_{}", tile.bm());
            let case = TestCase::new(name, regime, Tolerance::f32_sum(k as usize, scale))
                .input(&seeded(shape.x_rows(x) as usize * k as usize, 1))
                .input(&weights)
                .input(&scales)
                .input(&seeded((experts * n) as usize, 3))
                .input(&[0.0f32; 4])
                .output(y_len)
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
            case = case.launch(choice(tile, shape, format, epilogue), &params, grid);
        }
        case
    };
    cases.into_iter().map(of_height).collect()
}

fn cases_of(format: WeightFormat) -> Vec<TestCase> {
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
    let (f32, f16, bf16) = (WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16);
    let few = [FEWEST, SMALL, DIRECT_SUBGROUP_8, DIRECT_SUBGROUP_4];
    let mut cases = Vec::new();
    let mut add = |of, what, how, first, tiles: &[Tile]| cases.extend(case(of, what, how, first, tiles));
    add(("one_expert", OneTile), (shape([5, 1, 1], 6, 16), f32), (plain, Tokens), 0, &TILES);
    add(("odd", PartialTile), (shape([37, 3, 5], 71, 131), f16), (biased, Tokens), 0, &few);
    add(("slots", PartialTile), (shape([19, 2, 6], 66, 45), f32), (biased, Slots), 0, &few);
    let mxfp4 = Format::MXFP4.into();
    add(("gpt_oss", PartialTile), (shape([23, 4, 6], 70, 96), mxfp4), (glu(6), Tokens), 0, &few);
    let q4_0 = Format::Q4_0.into();
    add(("second_part", PartialTile), (shape([21, 3, 7], 34, 96), q4_0), (glu(1), Tokens), 3, &few);
    add(("many_rows", ManyTiles), (shape([150, 2, 3], 130, 48), f32), (plain, Tokens), 0, &TILES);
    // Every reader of weights in every regime, with pipelines that serve all four. The model is OLMoE's down projection.
    let one_of_each = [SMALL, DIRECT, DIRECT_SUBGROUP_8];
    for (name, regime, dims, n, k) in [
        ("one_tile", OneTile, [3, 2, 3], 6, 32),
        ("partial_tile", PartialTile, [11, 3, 8], 70, 96),
        ("many_tiles", ManyTiles, [40, 2, 5], 130, 64),
        ("olmoe", Model, [6, 8, 16], 66, 1024),
    ] {
        for format in [f32, f16, bf16, q4_0] {
            let name = format!("{format}_{name}");
            let of = (shape(dims, n, k), format);
            cases.extend(case((&name, regime), of, (plain, Slots), 0, &one_of_each));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_follow_the_rows_of_an_expert() {
        let shape = |tokens, slots, experts| ExpertShape { tokens, slots, experts, n: 64, k: 64 };
        let gpu = Caps::baseline();
        assert_eq!(tile_height(&gpu, shape(16, 8, 128)), 8);
        assert_eq!(tile_height(&gpu, shape(256, 8, 128)), 16);
        assert_eq!(tile_height(&gpu, shape(512, 8, 128)), 32);
        assert_eq!(tile_height(&gpu, shape(512, 2, 8)), 64);
        for height in [8, 16, 32, 64] {
            assert_eq!(tile(&gpu, WeightFormat::F16, height).expect("a tile").bm(), height);
        }
        assert!(tile(&gpu, WeightFormat::F16, 65).is_err());
    }
}

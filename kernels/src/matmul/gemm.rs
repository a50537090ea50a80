//! Many rows of activations times a matrix, with the epilogue behind.

pub mod grouped;
mod measured;

use girih_shaders::Selection;

use super::product::{Epilogue, EpilogueKind, Params, Part, Shape, check_result};
use super::tile::{ENOUGH_GROUPS, Plan, Tile};
use super::{QUANT_FORMATS, WeightFormat, or_dummy, parts, reference, split_sum, tuning};
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Launch, Requires};
use crate::error::KernelError;
use crate::quant::{Code, Format};
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, Tuning, read, read_write};
use crate::twin::TwinCall;

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Activations `[M, K]`.
    pub x: &'a Buffer,
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
    name: "gemm",
    bindings: &[read("x"), read("w"), read("w_scales"), read("vectors"), read("residual"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel = Kernel {
    spec: &SPEC,
    choices,
    cases,
    benches: super::bench::gemm,
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
/// An odd N with a gated linear unit, buffers that are too short, scratch memory that is missing, and as [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, args: Args<'_>, shape: Shape) -> Result<(), KernelError> {
    let Epilogue { bias, residual, act, .. } = args.epilogue;
    shape.check(SPEC.name, act.is_glu())?;
    if shape.m == 0 {
        return Ok(());
    }
    let x_bytes = rows::product([4, shape.m.into(), shape.k.into()]);
    rows::check_sizes(SPEC.name, [("x", Some(args.x), x_bytes)])?;
    check_result(SPEC.name, &args.epilogue, args.y, [shape.m, shape.n])?;
    let plan = plan(rec.caps(), shape, &formats(args.parts));
    let Plan { tile, splits, split_k8 } = plan;
    let gpu = rec.gpu().clone();
    let split = plan.is_split();
    let y = plan.output(SPEC.name, shape, args.scratch, args.y)?;
    let (epilogue, bias, residual) = if split {
        (EpilogueKind::default(), gpu.dummy()?, gpu.dummy()?)
    } else {
        (args.epilogue.kind(), or_dummy(&gpu, bias)?, or_dummy(&gpu, residual)?)
    };
    for part in args.parts {
        let y_stride = if split { shape.n } else { act.columns(shape.n) };
        let params = Params { y_stride, split_k8, ..Params::of(shape, part, &args.epilogue) };
        let choice = choice(tile, shape, part.format, split, epilogue);
        let grid = tile.grid(shape.m, part.rows, splits);
        let scales = part.scales(SPEC.name, &gpu, shape.k)?;
        rec.dispatch(&SPEC, choice, &params, &[args.x, part.buffer, &scales, &bias, &residual, y], grid)?;
    }
    if split {
        split_sum::record(rec, y, args.epilogue, args.y, [splits, shape.m, shape.n])?;
    }
    Ok(())
}

/// 128 x 64, 64 outputs an invocation: as much reuse as registers allow.
const LARGE: Tile = Tile::shared([8, 8], [8, 16]);
/// 64 x 64.
const MEDIUM: Tile = Tile::shared([8, 4], [16, 8]);
/// 32 x 64.
const SMALL: Tile = Tile::shared([4, 4], [16, 8]);
/// 16 x 64, for few rows.
const FEW: Tile = Tile::shared([4, 4], [16, 4]).deep(4);
/// 8 x 64.
const FEWEST: Tile = Tile::shared([4, 2], [32, 2]).deep(4);
/// For a CPU's vector unit: 8 lanes side by side.
const DIRECT: Tile = Tile::direct([4, 8], 8, 1);
/// The same with rows of x shared through a subgroup, for f32: 16 rows cost two loads, which W costs most of.
const DIRECT_SUBGROUP: Tile = Tile::direct([16, 2], 8, 8);
/// For weights of 2 bytes, which leave the loads of x to be shared among more columns.
const DIRECT_SUBGROUP_16: Tile = Tile::direct([16, 4], 8, 8);
/// For up to 8 rows, and for quantised weights: the registers go to their conversion.
const DIRECT_SUBGROUP_8: Tile = Tile::direct([8, 4], 8, 8);
/// For subgroups of 4: SwiftShader, whose vectors have 4 lanes and 16 registers.
const DIRECT_SUBGROUP_4: Tile = Tile::direct([8, 4], 4, 4);

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
    if caps.cpu_variants() && allowed("direct") {
        let lanes = caps.subgroup_size.map_or(1, |(smallest, _)| smallest);
        let allowed = allowed("direct_subgroup");
        let quantised = formats.iter().any(|format| matches!(format, WeightFormat::Quant(_)));
        let tile = match lanes {
            8.. if allowed && (shape.m <= 8 || quantised) => DIRECT_SUBGROUP_8,
            8.. if allowed && formats.contains(&WeightFormat::F32) => DIRECT_SUBGROUP,
            8.. if allowed => DIRECT_SUBGROUP_16,
            4.. if allowed => DIRECT_SUBGROUP_4,
            _ => DIRECT,
        };
        return Plan::whole(tile, shape);
    }
    let tile = [FEWEST, FEW, SMALL]
        .into_iter()
        .find(|tile| shape.m <= tile.bm())
        .unwrap_or(if LARGE.groups(shape.m, shape.n) >= ENOUGH_GROUPS { LARGE } else { MEDIUM });
    if allowed("split_k") { Plan::split(caps, tile, shape, tile.bk8) } else { Plan::whole(tile, shape) }
}

fn choice(tile: Tile, shape: Shape, format: WeightFormat, split: bool, epilogue: EpilogueKind) -> Choice {
    let selection = parts(Selection::new(), format, shape.aligned())
        .set("TM", tile.tm)
        .set("TN", tile.tn)
        .set("TX", tile.tx);
    let selection = epilogue.apply(selection);
    if tile.direct {
        let subgroup = tile.lanes > 1;
        let selection = match format {
            WeightFormat::Quant(_) => selection
                .set("F16_BELOW_NORMAL", true)
                .part("block_weights", "quant/block_weights.wgsl")
                .part("products", "quant/gemm_blocks.wgsl"),
            _ => selection,
        };
        return Choice {
            file: "matmul/gemm_direct.wgsl",
            variant: if subgroup { "direct_subgroup" } else { "direct" },
            selection: if subgroup {
                selection.set("LANES", tile.lanes).part("share_load", "matmul/share_subgroup.wgsl")
            } else {
                selection
            },
            invocations: tile.tx,
            workgroup_bytes: 0,
            requires: if subgroup { Requires::lanes(tile.lanes) } else { Requires::NOTHING },
            data: Data::Weights(format),
        };
    }
    Choice {
        file: "matmul/gemm.wgsl",
        variant: if split { "split_k" } else { "tiled" },
        selection: selection.set("TY", tile.ty).set("BK8", tile.bk8).set("SPLIT", split),
        invocations: tile.tx * tile.ty,
        workgroup_bytes: 32 * tile.bk8 * (tile.bm() + tile.ty + tile.bn() + tile.tn),
        requires: Requires::NOTHING,
        data: Data::Weights(format),
    }
}

/// What `select` launches for a shape, without epilogue.
pub(super) fn bench_launch(caps: &Caps, shape: Shape, format: WeightFormat) -> Launch {
    let Plan { tile, splits, split_k8 } = plan(caps, shape, &[format]);
    let params = Params { split_k8, ..Params::plain(shape, shape.n) };
    let choice = choice(tile, shape, format, splits > 1, EpilogueKind::default());
    Launch::new(choice, &params, tile.grid(shape.m, shape.n, splits))
}

const TILES: [Tile; 10] = [
    LARGE,
    MEDIUM,
    SMALL,
    FEW,
    FEWEST,
    DIRECT,
    DIRECT_SUBGROUP,
    DIRECT_SUBGROUP_16,
    DIRECT_SUBGROUP_8,
    DIRECT_SUBGROUP_4,
];

/// Whether `plan` gives a tile to weights of a format.
fn is_planned(tile: Tile, format: WeightFormat) -> bool {
    !matches!(format, WeightFormat::Quant(_)) || ![DIRECT_SUBGROUP, DIRECT_SUBGROUP_16].contains(&tile)
}

fn choices() -> Vec<Choice> {
    let mut all = Vec::new();
    for tile in TILES {
        let mut add = |format, k| {
            if !is_planned(tile, format) {
                return;
            }
            let shape = Shape { m: 64, n: 64, k };
            all.push(choice(tile, shape, format, false, EpilogueKind::default()));
            if !tile.direct {
                all.push(choice(tile, shape, format, true, EpilogueKind::default()));
            }
        };
        for format in WeightFormat::DENSE {
            add(format, 64);
            add(format, 63);
        }
        for (i, format) in QUANT_FORMATS.into_iter().enumerate() {
            add(format.into(), 64 - i as u32 % 2);
        }
        for act in 0..9 {
            let epilogue = EpilogueKind { act, glu: act > 0 && act != 5, bias: true, residual: true };
            let shape = Shape { m: 64, n: 64, k: 64 };
            all.push(choice(tile, shape, WeightFormat::F16, false, epilogue));
        }
    }
    all
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let (num_m, num_n) = (p.num_m as usize, p.num_n as usize);
    let (num_k, padded) = (p.num_k as usize, 8 * p.num_k8 as usize);
    let x: Vec<f64> = call.get::<f32>(0).into_iter().map(f64::from).collect();
    let w = reference::weights(call, [1, 2], p.num_k);
    let finish = reference::finish_product(call, &p);
    let split = call.selection.get_bool("SPLIT");
    let mut y: Vec<f32> = call.get(5);
    for (row, x) in x.chunks_exact(num_k).take(num_m).enumerate() {
        if split {
            let chunk = 8 * p.split_k8 as usize;
            for (s, x) in x.chunks(chunk).enumerate() {
                for (n, w) in w.chunks_exact(padded).take(num_n).enumerate() {
                    let at = (s * num_m + row) * p.y_stride as usize + p.n_base as usize + n;
                    y[at] = reference::dot(x, &w[s * chunk..]) as f32;
                }
            }
        } else {
            let sums: Vec<f64> = w.chunks_exact(padded).take(num_n).map(|w| reference::dot(x, w)).collect();
            finish.store(&mut y, row, p.n_base as usize, &sums);
        }
    }
    call.put(5, &y);
}

/// A case with weights of a format.
fn case(
    (name, regime): (&str, Regime),
    (shape, format): (Shape, WeightFormat),
    epilogue: EpilogueKind,
    tiles: &[Tile],
    splits: u32,
) -> TestCase {
    let Shape { m, n, k } = shape;
    let [weights, scales] = reference::seeded_weights(n, k, format, 2);
    let y_stride = epilogue.columns(n);
    let plan = |tile: Tile| match splits {
        1 => Plan::whole(tile, shape),
        _ => Plan::divided(tile, shape, splits, 4),
    };
    let splits = plan(tiles[0]).splits;
    let scale = 4.0 * if epilogue.glu { 10.0 } else { 1.0 };
    let mut case = TestCase::new(name, regime, Tolerance::f32_sum(k as usize, scale))
        .input(&seeded((m * k) as usize, 1))
        .input(&weights)
        .input(&scales)
        .input(&seeded(n as usize, 3))
        .input(&seeded((m * y_stride) as usize, 4))
        .output((splits * m * y_stride) as usize);
    for &tile in tiles.iter().filter(|&&tile| is_planned(tile, format)) {
        let params = Params { split_k8: plan(tile).split_k8, ..Params::of_case(shape, epilogue) };
        let choice = choice(tile, shape, format, splits > 1, epilogue);
        case = case.launch(choice, &params, tile.grid(m, n, splits));
    }
    case
}

fn cases_of(format: WeightFormat) -> Vec<TestCase> {
    let of = |m, k| (Shape { m, n: 67, k }, format);
    let (plain, named) = (EpilogueKind::default(), ("any_format", Regime::PartialTile));
    vec![
        case(named, of(35, 264), plain, &TILES, 1),
        case(named, of(35, 544), plain, &[LARGE, MEDIUM, SMALL, FEW, FEWEST], 2),
    ]
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let plain = EpilogueKind::default();
    let shape = |m, n, k, format| (Shape { m, n, k }, format);
    let quant = |m, n, k, format: Format| shape(m, n, k, format.into());
    let (f32, f16, bf16) = (WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16);
    let full = |act, glu| EpilogueKind { act, glu, bias: true, residual: true };
    let all = TILES;
    let two = [SMALL, DIRECT_SUBGROUP, DIRECT_SUBGROUP_4];
    let quant_two = [SMALL, DIRECT_SUBGROUP_8, DIRECT_SUBGROUP_4];
    let mut cases = vec![
        case(("many_tiles", ManyTiles), shape(133, 130, 48, f32), plain, &all, 1),
        case(("one_tile", OneTile), shape(5, 6, 16, f32), plain, &all, 1),
        case(("odd", PartialTile), shape(37, 71, 131, f16), full(5, false), &two, 1),
        case(("glu", ManyTiles), shape(67, 130, 40, bf16), full(1, true), &two, 1),
        case(("odd_columns", PartialTile), shape(19, 129, 44, f32), full(2, false), &[DIRECT_SUBGROUP], 1),
        case(("one_split", OneTile), shape(5, 6, 64, f32), plain, &[SMALL], 2),
        case(("splits", PartialTile), shape(35, 67, 200, f16), plain, &[MEDIUM, FEW, FEWEST], 3),
        case(("gpt_oss_20b", Model), shape(16, 160, 2880, bf16), plain, &[DIRECT_SUBGROUP], 1),
        case(("q4_0", PartialTile), quant(19, 70, 264, Format::Q4_0), plain, &quant_two, 1),
        case(
            ("int8_odd", PartialTile),
            quant(5, 67, 30, Format::asymmetric(Code::Int8, Format::ROW)),
            full(1, false),
            &quant_two,
            1,
        ),
        case(("iq4_nl", ManyTiles), quant(133, 66, 40, Format::IQ4_NL), plain, &[LARGE], 1),
        case(("q4_k", PartialTile), quant(70, 67, 264, Format::Q4_K), plain, &[MEDIUM], 1),
        case(("q5_0", PartialTile), quant(9, 67, 40, Format::Q5_0), plain, &[DIRECT], 1),
        case(("q6_k_splits", PartialTile), quant(9, 34, 520, Format::Q6_K), plain, &[SMALL], 2),
    ];
    for format in QUANT_FORMATS {
        let of = format!("blocks_{format}");
        cases.push(case(
            (&of, PartialTile),
            shape(9, 34, 600, format.into()),
            plain,
            &[DIRECT_SUBGROUP_8],
            1,
        ));
    }
    // Every reader of weights in every regime: one pipeline for each tile.
    let small = [SMALL, DIRECT, DIRECT_SUBGROUP, DIRECT_SUBGROUP_8];
    for (name, regime, [m, n, k]) in [
        ("one_tile", OneTile, [5, 6, 32]),
        ("partial_tile", PartialTile, [37, 70, 64]),
        ("many_tiles", ManyTiles, [64, 128, 64]),
        ("llama_1b", Model, [7, 64, 2048]),
    ] {
        let q4_0 = Format::Q4_0.into();
        let dense_tiles: &[Tile] = if regime == Model || regime == PartialTile { &all } else { &small };
        cases.push(case((&format!("f32_{name}"), regime), shape(m, n, k, f32), plain, dense_tiles, 1));
        for (format, epilogue) in [(f16, plain), (bf16, full(1, true)), (q4_0, plain)] {
            let of = (format!("{format}_{name}"), shape(m, n, k, format));
            cases.push(case((&of.0, regime), of.1, epilogue, &small, 1));
        }
        for format in [f32, f16, bf16, Format::Q6_K.into()] {
            let of = (format!("{format}_splits_{name}"), shape(m, n, k.max(48), format));
            cases.push(case((&of.0, regime), of.1, plain, &[SMALL], 2));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tier;

    fn plan(caps: &Caps, shape: Shape) -> Plan {
        super::plan(caps, shape, &[WeightFormat::F16])
    }

    #[test]
    fn selects_by_capability_and_shape() {
        let baseline = Caps::baseline();
        let shape = |m, n, k| Shape { m, n, k };
        assert_eq!(plan(&baseline, shape(512, 4096, 4096)), Plan { tile: LARGE, splits: 1, split_k8: 512 });
        assert_eq!(plan(&baseline, shape(200, 768, 256)), Plan { tile: MEDIUM, splits: 1, split_k8: 32 });
        let narrow = plan(&baseline, shape(16, 1024, 4096));
        assert_eq!(narrow, Plan { tile: FEW, splits: 16, split_k8: 32 });
        assert_eq!(plan(&baseline, shape(8, 4096, 4096)), Plan { tile: FEWEST, splits: 8, split_k8: 64 });
        assert_eq!(plan(&baseline, shape(17, 4096, 4096)), Plan { tile: SMALL, splits: 4, split_k8: 128 });
        assert_eq!(scratch_bytes(&baseline, shape(16, 1024, 4096), &[]), 4 * 16 * 16 * 1024);
        let mut gpu = Caps { subgroup_size: Some((32, 32)), tier: Tier::Subgroup, ..baseline };
        assert_eq!(plan(&gpu, shape(16, 1024, 4096)), narrow);
        gpu.blocked.insert("gemm/split_k".into());
        assert_eq!(plan(&gpu, shape(16, 1024, 4096)).splits, 1);
        let cpu = Caps { subgroup_size: Some((8, 8)), tier: Tier::Cpu, is_cpu: true, ..Caps::baseline() };
        assert_eq!(
            plan(&cpu, shape(16, 1024, 4096)),
            Plan { tile: DIRECT_SUBGROUP_16, splits: 1, split_k8: 512 }
        );
        let floats = super::plan(&cpu, shape(16, 1024, 4096), &[WeightFormat::F32]);
        assert_eq!(floats.tile, DIRECT_SUBGROUP);
        let codes = super::plan(&cpu, shape(16, 1024, 4096), &[WeightFormat::Quant(Format::Q4_0)]);
        assert_eq!(codes.tile, DIRECT_SUBGROUP_8);
        let narrow = Caps { subgroup_size: Some((4, 4)), ..cpu.clone() };
        assert_eq!(plan(&narrow, shape(16, 1024, 4096)).tile, DIRECT_SUBGROUP_4);
        let none = Caps { subgroup_size: None, ..cpu };
        assert_eq!(plan(&none, shape(16, 1024, 4096)).tile, DIRECT);
    }

    #[test]
    fn splits_cover_all_channels() {
        let caps = Caps::baseline();
        for k in (1..9000).step_by(37) {
            let shape = Shape { m: 7, n: 50, k };
            let Plan { splits, split_k8, .. } = plan(&caps, shape);
            assert!(splits * split_k8 >= shape.num_k8() && (splits - 1) * split_k8 < shape.num_k8(), "K {k}");
        }
    }

    #[test]
    fn every_choice_fits_the_baseline() {
        for choice in choices() {
            assert!(choice.workgroup_bytes <= 16 << 10 && choice.invocations <= 128, "{}", choice.selection);
        }
    }
}

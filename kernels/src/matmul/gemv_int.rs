//! A few rows of integer activations times a quantised matrix, with the normalisation before and the epilogue behind.
//!
//! Activations come in f32 and are quantised on the way, in blocks of 32 channels, or quantised before. Within a
//! block products are added up as exact integers.

mod measured;
pub mod routed;

use girih_shaders::Selection;

use super::bench::{int_case as bench_case, parse_int as parse_bench};
use super::few_rows::{self, Candidates, Config, Kind, LANES};
use super::int::{self, Weights, XRow};
use super::product::{Epilogue, EpilogueKind, Params, Part, Shape, check_result};
use super::tuning;
use super::{or_dummy, product, reference};
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{BenchCase, Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Launch};
use crate::error::KernelError;
use crate::quant::{Code, Format, Scale, Super, SuperScale, WeightFormat};
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, Tuning, read, read_write};
use crate::twin::TwinCall;

pub use super::few_rows::MAX_M;

/// Where x comes from.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a> {
    /// f32 `[M, K]`, quantised to 8 bits in blocks of 32 channels (`QuantActivation::INT8`). Rows of y are NaN or infinite
    /// where their row of x has NaN or an infinity.
    Float {
        /// Activations.
        x: &'a Buffer,
        /// `x / sqrt(mean(x²) + eps) · weight` before: weight `[K]` and eps.
        rms_norm: Option<(&'a Buffer, f32)>,
    },
    /// Quantised before.
    Codes {
        /// Bytes `[M, B, 32]`, B = ceil(K / 32); zeros from K on.
        codes: &'a Buffer,
        /// `[M, B]` of the scale (f32) and the sums of both halves of the block (i16).
        scales: &'a Buffer,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OperandKind {
    Float { rms_norm: bool },
    Codes,
}

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Activations of M rows, M from 1 to [`MAX_M`].
    pub input: Operand<'a>,
    /// W, all of its rows.
    pub parts: &'a [Part<'a>],
    /// Behind the product.
    pub epilogue: Epilogue<'a>,
    /// Result `[M, N]`, or `[M, N / 2]` with a gated linear unit.
    pub y: &'a Buffer,
}

const SPEC: KernelSpec = KernelSpec {
    name: "gemv_int",
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

/// Appends `y = epilogue(norm(x) · Wᵀ)`, one dispatch for each part of W.
///
/// # Errors
/// M over [`MAX_M`], an odd N with a gated linear unit, vectors that are not [`in_one_binding`](super::in_one_binding),
/// weights without integers or with groups of neither 16 nor a
/// multiple of 32, buffers that are too short, and as [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, args: Args<'_>, shape: Shape) -> Result<(), KernelError> {
    let Epilogue { bias, residual, act, .. } = args.epilogue;
    let kernel = SPEC.name;
    shape.check(kernel, act.is_glu())?;
    if shape.m > MAX_M {
        let (got, must_be) = (shape.m.into(), "at most 4");
        return Err(KernelError::BadParam { kernel, field: "m", got, must_be });
    }
    if shape.m == 0 {
        return Ok(());
    }
    let (kind, x, x_scales, norm_weight, eps) = match args.input {
        Operand::Float { x, rms_norm } => {
            let kind = OperandKind::Float { rms_norm: rms_norm.is_some() };
            (kind, x, None, rms_norm.map(|n| n.0), rms_norm.map_or(0.0, |n| n.1))
        }
        Operand::Codes { codes, scales } => {
            int::check_codes(kernel, codes, scales, shape)?;
            (OperandKind::Codes, codes, Some(scales), None, 0.0)
        }
    };
    let row_bytes = 4 * u64::from(shape.k);
    if let Operand::Float { x, .. } = args.input {
        let x = ("x", Some(x), u64::from(shape.m) * row_bytes);
        rows::check_sizes(kernel, [x, ("norm_weight", norm_weight, row_bytes)])?;
    }
    check_result(kernel, &args.epilogue, args.y, [shape.m, shape.n])?;
    let gpu = rec.gpu().clone();
    let optional = |buffer| or_dummy(&gpu, buffer);
    let (vectors, [norm_weight_at, _, bias_at]) = product::vectors(kernel, &gpu, [norm_weight, None, bias])?;
    let (x_scales, residual) = (optional(x_scales)?, optional(residual)?);
    for part in args.parts {
        let (format, scales) = part.integers(kernel, &gpu, shape.k)?;
        let part_shape = Shape { n: part.rows, ..shape };
        let (choice, config) = select(rec.caps(), part_shape, format, kind, args.epilogue.kind());
        let grid = config.grid(rec.caps(), part.rows);
        let params = Params {
            grid_x: grid[0],
            norm_weight_at,
            bias_at,
            eps,
            ..Params::of(shape, part, &args.epilogue)
        };
        let buffers = [x, part.buffer, &scales, &vectors, &residual, args.y, &x_scales];
        rec.dispatch(&SPEC, choice, &params, &buffers, grid)?;
    }
    Ok(())
}

/// The measured winner, or what the rule says.
fn select(
    caps: &Caps,
    shape: Shape,
    format: Format,
    input: OperandKind,
    epilogue: EpilogueKind,
) -> (Choice, Config) {
    let of = |config| (choice(config, shape, format, input, epilogue), config);
    let (class, weights) = (|| class(shape, input), format.into());
    let winner =
        caps.winner(SPEC.name, Data::Weights(weights), class, || CANDIDATES.on(caps, SPEC.name, weights));
    let tuned = winner.map(of).filter(|(choice, _)| caps.runs(choice));
    tuned.unwrap_or_else(|| rule(caps, shape, format, input, epilogue))
}

/// What is measured.
const CANDIDATES: Candidates = Candidates {
    lanes: &[(LANES, 2), (LANES, 4)],
    wide: &[],
    cpu: (&[8], &[2, 4]),
    gpu: (&[32, 64, 128], &[2, 4, 8]),
};

/// Shapes and inputs that have a winner of their own.
fn class(Shape { m, n, k }: Shape, input: OperandKind) -> String {
    let input = match input {
        OperandKind::Float { rms_norm: false } => "f32",
        OperandKind::Float { rms_norm: true } => "f32/rms",
        OperandKind::Codes => "int8",
    };
    format!("{m}x{n}x{k}/{input}")
}

fn rule(
    caps: &Caps,
    shape: Shape,
    format: Format,
    input: OperandKind,
    epilogue: EpilogueKind,
) -> (Choice, Config) {
    let data = Data::Weights(format.into());
    let allowed = |variant: &str| caps.subgroups() && !caps.is_blocked(SPEC.name, variant, data);
    let kind = if allowed("subgroup") { Kind::Subgroup } else { Kind::Portable };
    let enough_lanes = caps.subgroup_size.is_some_and(|(smallest, _)| smallest >= LANES);
    let config = if caps.cpu_variants() && enough_lanes && allowed("lanes_subgroup") {
        Config::lanes(LANES, lane_rows(shape))
    } else if caps.cpu_variants() {
        Config { wg: 8, rows: 4, kind }
    } else {
        // An invocation takes 32 channels at a time. Long rows feed more of them; many rows leave enough workgroups
        // when more of them share one, and with it the quantisation of x.
        let wg = match shape.num_blocks() {
            128.. => 128,
            48.. => 64,
            _ => 32,
        };
        Config { wg, rows: if shape.n >= 4096 { 8 / shape.m.min(2) } else { 2 }, kind }
    };
    (choice(config, shape, format, input, epilogue), config)
}

/// Rows of W of a lane.
fn lane_rows(shape: Shape) -> u32 {
    if shape.m > 2 { 2 } else { 4 }
}

fn choice(
    config: Config,
    shape: Shape,
    format: Format,
    input: OperandKind,
    epilogue: EpilogueKind,
) -> Choice {
    let cols = shape.m;
    let rms_norm = input == OperandKind::Float { rms_norm: true };
    let rms_sums = if rms_norm { cols } else { 0 };
    let mut selection = format.apply(Selection::new()).set("COLS", cols).set("RMS_SUMS", rms_sums);
    if input != OperandKind::Codes {
        let aligned = shape.k.is_multiple_of(8);
        selection = selection
            .part("x_int", "matmul/int_x_float.wgsl")
            .part("x_vec4", if aligned { "matmul/x_vec4.wgsl" } else { "matmul/x_scalar.wgsl" })
            .set("WHOLE_BLOCKS", shape.k.is_multiple_of(int::BLOCK))
            .set("RMS_NORM", rms_norm);
        if rms_norm {
            let file = if aligned { "matmul/norm_vec4.wgsl" } else { "matmul/norm_scalar.wgsl" };
            selection = selection.part("norm", file);
            if aligned {
                selection = selection.part("vectors", "matmul/vectors4.wgsl");
            }
        }
    }
    let files = ["matmul/gemv_int.wgsl", "matmul/gemv_int_lanes.wgsl"];
    let num_sums = config.rows * cols + rms_sums;
    config.choice(files, num_sums, epilogue.apply(selection), Data::Weights(format.into()))
}

const CONFIGS: [Config; 6] = [
    Config::portable(64, 2),
    Config::subgroup(128, 8),
    Config::portable(8, 4),
    Config::lanes(LANES, 2),
    Config::lanes(LANES, 4),
    Config::subgroup(8, 4),
];

const INPUTS: [OperandKind; 3] =
    [OperandKind::Float { rms_norm: false }, OperandKind::Float { rms_norm: true }, OperandKind::Codes];

fn choices() -> Vec<Choice> {
    let plain = EpilogueKind::default();
    let mut all = Vec::new();
    for config in CONFIGS {
        for input in INPUTS {
            for k in [64, 40, 63] {
                for m in [1, MAX_M] {
                    all.push(choice(config, Shape { m, n: 64, k }, Format::Q4_0, input, plain));
                }
            }
        }
        let shape = Shape { m: 1, n: 64, k: 256 };
        for format in int::FORMATS {
            all.push(choice(config, shape, format, OperandKind::Codes, plain));
        }
        for act in 0..9 {
            for glu in [false, true] {
                let epilogue = EpilogueKind { act, glu, bias: true, residual: true };
                all.push(choice(config, shape, Format::Q4_0, OperandKind::Codes, epilogue));
            }
        }
    }
    all
}

/// The definition: quantisation in f64, blocks in integers, their sums in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let s = call.selection;
    let k = p.num_k as usize;
    let float = s.get("RMS_NORM").is_some();
    let w = Weights::read(s, &call.get::<u32>(1), &call.get::<u32>(2), p.num_n as usize, p.num_k);
    let x: Vec<f32> = call.get(0);
    let (codes, scales): (Vec<i8>, Vec<[u32; 2]>) = (call.get(0), call.get(6));
    let vectors: Vec<f32> = call.get(3);
    let norm_weight = &vectors[p.norm_weight_at as usize..];
    let finish = reference::finish_product(call, &p);
    let mut y: Vec<f32> = call.get(5);
    for row in 0..s.get_u32("COLS").unwrap_or(1) as usize {
        let mut scale = 1.0;
        let quantised = if float {
            let mut v: Vec<f64> = x[row * k..(row + 1) * k].iter().map(|&v| v.into()).collect();
            if s.get_bool("RMS_NORM") {
                let mean_sq = v.iter().map(|v| v * v).sum::<f64>() / k as f64;
                scale = 1.0 / (mean_sq + f64::from(p.eps)).sqrt();
                for (v, &w) in v.iter_mut().zip(norm_weight) {
                    *v *= f64::from(w);
                }
            }
            XRow::quantise(&v)
        } else {
            XRow::read(&codes, &scales, row, k)
        };
        let sums: Vec<f64> = w.products(&quantised).into_iter().map(|v| scale * v).collect();
        finish.store(&mut y, row, p.n_base as usize, &sums);
    }
    call.put(5, &y);
}

/// A case with weights of a format.
fn case(
    (name, regime): (&str, Regime),
    [m, n, k]: [u32; 3],
    format: Format,
    input: OperandKind,
    epilogue: EpilogueKind,
    configs: &[Config],
) -> TestCase {
    let shape = Shape { m, n, k };
    let y_stride = epilogue.columns(n);
    let (codes, scales) = int::seeded_weights(n, k, format, 2);
    // Weights of the norm away from zero: x is divided by them.
    let norm: Vec<f32> = seeded(k as usize, 3).iter().map(|v| 1.5 + v.clamp(-1.0, 1.0)).collect();
    let (x_codes, x_scales) = int::seeded_codes(m, k, n.is_multiple_of(2), 4);
    let x = int::seeded_x(m, k, (input == (OperandKind::Float { rms_norm: true })).then_some(&norm), 5);
    // Minima and zeros make partial sums larger than the result by the ratio of zero and spread: 2 at most.
    let tolerance = Tolerance::f32_sum(k as usize, 8.0 * if epilogue.glu { 10.0 } else { 1.0 });
    let (vectors, [norm_weight_at, bias_at]) = product::join([&norm, &seeded(n as usize, 6)]);
    let mut case = TestCase::new(name, regime, tolerance);
    case = if input == OperandKind::Codes { case.input(&x_codes) } else { case.input(&x) };
    case = case
        .input(&codes)
        .input(&scales)
        .input(&vectors)
        .input(&seeded((m * y_stride) as usize, 7))
        .output((m * y_stride) as usize)
        .input(&x_scales);
    for &config in configs {
        let grid = config.grid_of_case(n);
        let params = Params { grid_x: grid[0], norm_weight_at, bias_at, ..Params::of_case(shape, epilogue) };
        case = case.launch(choice(config, shape, format, input, epilogue), &params, grid);
    }
    case
}

fn cases_of(format: WeightFormat) -> Vec<TestCase> {
    let WeightFormat::Quant(format) = format else { return Vec::new() };
    let rms = OperandKind::Float { rms_norm: true };
    let named = ("any_format", Regime::ManyTiles);
    let every = CANDIDATES.with(&CONFIGS);
    let of = |input| case(named, [1, 66, 544], format, input, EpilogueKind::default(), &every);
    vec![of(rms), of(OperandKind::Codes)]
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    const FLOAT: OperandKind = OperandKind::Float { rms_norm: false };
    const RMS: OperandKind = OperandKind::Float { rms_norm: true };
    const CODES: OperandKind = OperandKind::Codes;
    let plain = EpilogueKind::default();
    let glu = |act| EpilogueKind { act, glu: true, bias: true, residual: true };
    let full = |act| EpilogueKind { act, glu: false, bias: true, residual: true };
    // Drivers for CPUs take seconds to compile the larger ones.
    let two = [CONFIGS[0], CONFIGS[4]];
    let three = [CONFIGS[0], CONFIGS[1], CONFIGS[4]];
    let one = &CONFIGS[4..5];
    // A super-group that ends within a block of x.
    let split_block = Format { second: Some(Super { group: 48, scale: SuperScale::F16 }), ..Format::Q6_K };
    let f32_row = Format { scale: Scale::F32, ..Format::asymmetric(Code::Int4, Format::ROW) };
    vec![
        // More blocks than invocations, sums in every subgroup, several workgroups of which the last is not full.
        case(("many_blocks", ManyTiles), [1, 11, 4160], Format::Q4_0, CODES, plain, &CONFIGS),
        case(("one_tile", OneTile), [1, 2, 32], Format::Q4_0, CODES, plain, &CONFIGS),
        case(("few_rows", PartialTile), [1, 35, 288], Format::Q4_0, CODES, plain, &[Config::subgroup(8, 2)]),
        case(("partial_tile", PartialTile), [1, 33, 40], Format::Q4_0, CODES, plain, &CONFIGS),
        case(("llama_1b", Model), [1, 64, 2048], Format::Q4_0, CODES, plain, &CONFIGS),
        case(("one_by_one", OneTile), [1, 1, 1], Format::Q8_0, FLOAT, plain, &two),
        case(("rms_norm", PartialTile), [1, 37, 288], Format::Q4_0, RMS, full(1), &three),
        case(
            ("glu", ManyTiles),
            [3, 66, 96],
            Format::Q8_0,
            RMS,
            glu(1),
            &[CONFIGS[0], CONFIGS[1], CONFIGS[3]],
        ),
        case(("odd", PartialTile), [1, 33, 131], Format::Q4_1, RMS, full(5), &two),
        case(
            ("partial_block", PartialTile),
            [2, 35, 40],
            Format::NVFP4,
            FLOAT,
            plain,
            &[CONFIGS[0], CONFIGS[4], CONFIGS[5]],
        ),
        case(("q4_k", PartialTile), [2, 34, 520], Format::Q4_K, CODES, plain, one),
        case(("q5_k", PartialTile), [1, 33, 288], Format::Q5_K, CODES, plain, one),
        case(("q6_k", PartialTile), [1, 33, 288], Format::Q6_K, CODES, plain, &two),
        case(("super_groups_of_48", PartialTile), [1, 33, 600], split_block, CODES, plain, &two),
        case(("iq4_nl", PartialTile), [1, 33, 96], Format::IQ4_NL, CODES, plain, &two),
        case(("gpt_oss_20b", Model), [1, 40, 2880], Format::MXFP4, FLOAT, full(0), &three),
        case(("qoq", PartialTile), [1, 34, 320], Format::QOQ, CODES, plain, one),
        case(("row", PartialTile), [1, 33, 96], f32_row, CODES, plain, &two),
    ]
}

const BENCH_FORMATS: [Format; 3] = [Format::Q4_0, Format::Q8_0, Format::MXFP4];

fn bench_launches(caps: &Caps, name: &str) -> Vec<Launch> {
    if !caps.integer_dot {
        return Vec::new(); // floats are multiplied instead
    }
    let Some((shape, format, float)) = parse_bench(name) else { return Vec::new() };
    let input = if float { OperandKind::Float { rms_norm: false } } else { OperandKind::Codes };
    let plain = EpilogueKind::default();
    let rows = [2, 4, 8].into_iter().filter(|_| caps.cpu_variants());
    let passed_over = rows.map(|rows| Config::lanes(LANES, rows));
    let picks = std::iter::once(select(caps, shape, format, input, plain))
        .chain(passed_over.map(|config| (choice(config, shape, format, input, plain), config)));
    few_rows::bench_launches(caps, Params::plain(shape, shape.n), picks)
}

fn benches() -> Vec<BenchCase> {
    let shapes =
        [[1, 4096, 4096], [1, 14336, 4096], [4, 4096, 4096], [1, 2048, 2048], [1, 768, 2048], [1, 768, 768]];
    let mut all = Vec::new();
    for shape in shapes {
        for format in BENCH_FORMATS {
            for float in [true, false] {
                all.push(bench_case(shape, format, float, bench_launches));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tier;

    fn pick(caps: &Caps) -> (Choice, Config) {
        let shape = Shape { m: 1, n: 4096, k: 4096 };
        select(caps, shape, Format::Q4_0, OperandKind::Codes, EpilogueKind::default())
    }

    #[test]
    fn selects_by_capability() {
        let baseline = Caps::baseline();
        let (choice, config) = pick(&baseline);
        assert_eq!((choice.variant, config), ("portable", Config::portable(128, 8)));
        let mut gpu = Caps { subgroup_size: Some((32, 32)), tier: Tier::Subgroup, ..baseline };
        assert_eq!(pick(&gpu).0.variant, "subgroup");
        gpu.blocked.insert("gemv_int/subgroup".into());
        assert_eq!(pick(&gpu).0.variant, "portable");
        let cpu = Caps { subgroup_size: Some((8, 8)), tier: Tier::Cpu, is_cpu: true, ..Caps::baseline() };
        assert_eq!((pick(&cpu).0.variant, pick(&cpu).0.invocations), ("lanes_subgroup", 8));
        let narrow = Caps { subgroup_size: Some((4, 4)), ..cpu };
        assert_eq!((pick(&narrow).0.variant, pick(&narrow).0.invocations), ("subgroup", 8));
    }

    const KS: [u32; 7] = [1, 63, 1024, 1536, 2048, 4096, 28672];
    const NS: [u32; 6] = [2, 130, 2048, 4094, 4096, 128_256];

    #[test]
    fn every_choice_fits_the_baseline() {
        let baseline = Caps { invocations: 128, ..Caps::baseline() };
        let gpu = |size| Caps { subgroup_size: Some((size, size)), tier: Tier::Subgroup, ..baseline.clone() };
        let cpu = |size| Caps { tier: Tier::Cpu, is_cpu: true, ..gpu(size) };
        let glu = EpilogueKind { act: 1, glu: true, bias: true, residual: true };
        for caps in [baseline.clone(), gpu(4), gpu(32), cpu(4), cpu(8)] {
            for (k, n) in KS.into_iter().flat_map(|k| NS.map(|n| (k, n))) {
                for (m, input) in (1..=MAX_M).flat_map(|m| INPUTS.map(|input| (m, input))) {
                    let (choice, config) = select(&caps, Shape { m, n, k }, Format::Q4_0, input, glu);
                    let measured = CANDIDATES.on(&caps, SPEC.name, Format::Q4_0.into());
                    assert!(measured.contains(&config), "the rule's {config} is measured too");
                    let fits = choice.workgroup_bytes <= 16 << 10 && choice.invocations <= 128;
                    assert!(fits, "[{m}, {n}, {k}]: {}", choice.selection);
                    assert!(
                        config.group_rows().is_multiple_of(2),
                        "pairs of a gated unit lie in one workgroup"
                    );
                }
            }
        }
        for choice in choices() {
            assert!(choice.workgroup_bytes <= 16 << 10, "{}", choice.selection);
        }
    }
}

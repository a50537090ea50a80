//! A few rows of integer activations times a quantised matrix, with the normalisation before and the epilogue behind.
//!
//! Activations come in f32 and are quantised on the way, in blocks of 32 channels, or quantised before. Within a
//! block products are added up as exact integers.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use super::int::{self, IntPart, IntShape, Weights, XRow};
use super::{Epilogue, EpilogueKind, check_result, check_sizes, or_dummy, reference, wrap};
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{BenchBuffer, BenchCase, Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Launch, Requires};
use crate::error::KernelError;
use crate::quant::{Code, Format, Scale, Super, SuperScale, WeightFormat};
use crate::recorder::Recorder;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Rows of x up to which this kernel is made: the blocks of x of all rows stay in registers.
pub const MAX_M: u32 = 4;

/// Same layout as `Params` in `gemv_int_params.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows of this part of W.
    pub num_n: u32,
    /// Channels K.
    pub num_k: u32,
    /// Groups of 8 channels.
    pub num_k8: u32,
    /// Column of y of the part's first row.
    pub n_base: u32,
    /// Columns of y.
    pub y_stride: u32,
    /// Workgroups along x; more continue along y.
    pub grid_x: u32,
    /// Factor behind the bias.
    pub alpha: f32,
    /// Cap of the activation `SoftCap`.
    pub soft_cap: f32,
    /// Of the normalisation.
    pub eps: f32,
}

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
    pub parts: &'a [IntPart<'a>],
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
        read("x_scales"),
        read("norm_weight"),
        read("bias"),
        read("residual"),
        read_write("y"),
    ],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel = Kernel { spec: &SPEC, choices, cases, benches, cases_of: Some(cases_of) };

/// Appends `y = epilogue(norm(x) · Wᵀ)`, one dispatch for each part of W.
///
/// # Errors
/// M over [`MAX_M`], an odd N with a gated linear unit, weights without integers or with groups of neither 16 nor a
/// multiple of 32, buffers that are too short, and as [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, args: Args<'_>, shape: IntShape) -> Result<(), KernelError> {
    let Epilogue { bias, alpha, act, residual } = args.epilogue;
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
        check_sizes(kernel, [x, ("norm_weight", norm_weight, row_bytes)])?;
    }
    check_result(kernel, &args.epilogue, args.y, [shape.m, shape.n])?;
    let gpu = rec.gpu().clone();
    let optional = |buffer| or_dummy(&gpu, buffer);
    let (x_scales, norm_weight) = (optional(x_scales)?, optional(norm_weight)?);
    let (bias, residual) = (optional(bias)?, optional(residual)?);
    for part in args.parts {
        part.check(kernel, shape.k)?;
        let part_shape = IntShape { n: part.rows, ..shape };
        let (choice, rows) = select(rec.caps(), part_shape, part.format, kind, args.epilogue.kind());
        let [grid_x, grid_y] = wrap(rec.caps(), part.rows.div_ceil(rows));
        let params = Params {
            num_n: part.rows,
            num_k: shape.k,
            num_k8: shape.num_k8(),
            n_base: part.row0,
            y_stride: act.columns(shape.n),
            grid_x,
            alpha,
            soft_cap: act.soft_cap(),
            eps,
        };
        let buffers = [x, part.codes, part.scales, &x_scales, &norm_weight, &bias, &residual, args.y];
        rec.dispatch(&SPEC, choice, &params, &buffers, [grid_x, grid_y, 1])?;
    }
    Ok(())
}

/// Size of the workgroup and how many rows of W it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Config {
    wg: u32,
    rows: u32,
    kind: Kind,
}

/// How the sums of a workgroup come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Each dot product is reduced through workgroup memory.
    Portable,
    /// Each dot product is reduced through subgroups.
    Subgroup,
    /// Each lane of a subgroup owns rows of W and x is broadcast: `gemv_int_lanes.wgsl`.
    Lanes,
}

/// Lanes of [`Kind::Lanes`].
const LANES: u32 = 8;

impl Config {
    /// Rows of W that a workgroup takes.
    fn group_rows(self) -> u32 {
        if self.kind == Kind::Lanes { self.rows * LANES } else { self.rows }
    }
}

fn select(
    caps: &Caps,
    shape: IntShape,
    format: Format,
    input: OperandKind,
    epilogue: EpilogueKind,
) -> (Choice, u32) {
    let data = Data::Weights(format.into());
    let allowed = |variant: &str| caps.subgroups() && !caps.is_blocked(SPEC.name, variant, data);
    let kind = if allowed("subgroup") { Kind::Subgroup } else { Kind::Portable };
    let enough_lanes = caps.subgroup_size.is_some_and(|(smallest, _)| smallest >= LANES);
    let config = if caps.cpu_variants() && enough_lanes && allowed("lanes_subgroup") {
        Config { wg: LANES, rows: lane_rows(shape), kind: Kind::Lanes }
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
    (choice(config, shape, format, input, epilogue), config.group_rows())
}

/// Rows of W of a lane.
fn lane_rows(shape: IntShape) -> u32 {
    if shape.m > 2 { 2 } else { 4 }
}

fn choice(
    config: Config,
    shape: IntShape,
    format: Format,
    input: OperandKind,
    epilogue: EpilogueKind,
) -> Choice {
    let Config { wg, rows, kind } = config;
    let cols = shape.m;
    let rms_norm = input == OperandKind::Float { rms_norm: true };
    let rms_sums = if rms_norm { cols } else { 0 };
    let mut selection = format
        .apply(Selection::new())
        .set("WG", wg)
        .set("ROWS", rows)
        .set("COLS", cols)
        .set("RMS_SUMS", rms_sums);
    if input != OperandKind::Codes {
        let aligned = shape.k.is_multiple_of(8);
        selection = selection
            .part("x_int", "matmul/int_x_float.wgsl")
            .part("x_vec4", if aligned { "matmul/x_vec4.wgsl" } else { "matmul/x_scalar.wgsl" })
            .set("WHOLE_BLOCKS", shape.k.is_multiple_of(int::BLOCK))
            .set("RMS_NORM", rms_norm);
        if rms_norm {
            let file = if aligned { "matmul/int_norm_vec4.wgsl" } else { "matmul/int_norm_scalar.wgsl" };
            selection = selection.part("norm", file);
        }
    }
    let num_sums = rows * cols + rms_sums;
    let (file, variant, workgroup_bytes, requires) = match kind {
        Kind::Portable => ("matmul/gemv_int.wgsl", "portable", 4 * num_sums * wg, Requires::NOTHING),
        Kind::Subgroup => {
            selection = selection.part("sums", "matmul/sums_subgroup.wgsl");
            ("matmul/gemv_int.wgsl", "subgroup", num_sums * wg, Requires::SUBGROUPS) // one f32 for each subgroup
        }
        Kind::Lanes => {
            selection = selection.set("LANES", LANES);
            ("matmul/gemv_int_lanes.wgsl", "lanes_subgroup", 0, Requires::lanes(LANES))
        }
    };
    Choice {
        file,
        variant,
        selection: epilogue.apply(selection),
        invocations: wg,
        workgroup_bytes,
        requires,
        data: Data::Weights(format.into()),
    }
}

const CONFIGS: [Config; 6] = [
    Config { wg: 64, rows: 2, kind: Kind::Portable },
    Config { wg: 128, rows: 8, kind: Kind::Subgroup },
    Config { wg: 8, rows: 4, kind: Kind::Portable },
    Config { wg: LANES, rows: 2, kind: Kind::Lanes },
    Config { wg: LANES, rows: 4, kind: Kind::Lanes },
    Config { wg: 8, rows: 4, kind: Kind::Subgroup },
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
                    all.push(choice(config, IntShape { m, n: 64, k }, Format::Q4_0, input, plain));
                }
            }
        }
        let shape = IntShape { m: 1, n: 64, k: 256 };
        for format in int::FORMATS {
            all.push(choice(config, shape, format, OperandKind::Codes, plain));
        }
        for act in 0..6 {
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
    let (codes, scales): (Vec<i8>, Vec<[u32; 2]>) = (call.get(0), call.get(3));
    let norm_weight: Vec<f32> = call.get(4);
    let finish = reference::finish(call, [5, 6], [p.alpha, p.soft_cap], p.y_stride);
    let mut y: Vec<f32> = call.get(7);
    for row in 0..s.get_u32("COLS").unwrap_or(1) as usize {
        let mut scale = 1.0;
        let quantised = if float {
            let mut v: Vec<f64> = x[row * k..(row + 1) * k].iter().map(|&v| v.into()).collect();
            if s.get_bool("RMS_NORM") {
                let mean_sq = v.iter().map(|v| v * v).sum::<f64>() / k as f64;
                scale = 1.0 / (mean_sq + f64::from(p.eps)).sqrt();
                for (v, &w) in v.iter_mut().zip(&norm_weight) {
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
    call.put(7, &y);
}

fn params(shape: IntShape, y_stride: u32, grid_x: u32, [alpha, soft_cap]: [f32; 2]) -> Params {
    let IntShape { n, k, .. } = shape;
    Params {
        num_n: n,
        num_k: k,
        num_k8: shape.num_k8(),
        n_base: 0,
        y_stride,
        grid_x,
        alpha,
        soft_cap,
        eps: 1e-5,
    }
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
    let shape = IntShape { m, n, k };
    let y_stride = if epilogue.glu { n / 2 } else { n };
    let (codes, scales) = int::seeded_weights(n, k, format, 2);
    // Weights of the norm away from zero: x is divided by them.
    let norm: Vec<f32> = seeded(k as usize, 3).iter().map(|v| 1.5 + v.clamp(-1.0, 1.0)).collect();
    let (x_codes, x_scales) = int::seeded_codes(m, k, n.is_multiple_of(2), 4);
    let x = int::seeded_x(m, k, (input == (OperandKind::Float { rms_norm: true })).then_some(&norm), 5);
    // Minima and zeros make partial sums larger than the result by the ratio of zero and spread: 2 at most.
    let tolerance = Tolerance::f32_sum(k as usize, 8.0 * if epilogue.glu { 10.0 } else { 1.0 });
    let mut case = TestCase::new(name, regime, tolerance);
    case = if input == OperandKind::Codes { case.input(&x_codes) } else { case.input(&x) };
    case = case
        .input(&codes)
        .input(&scales)
        .input(&x_scales)
        .input(&norm)
        .input(&seeded(n as usize, 6))
        .input(&seeded((m * y_stride) as usize, 7))
        .output((m * y_stride) as usize);
    for &config in configs {
        let groups = n.div_ceil(config.group_rows());
        let grid_x = groups.min(5);
        let params = params(shape, y_stride, grid_x, [0.75, 1.5]);
        let choice = choice(config, shape, format, input, epilogue);
        case = case.launch(choice, &params, [grid_x, groups.div_ceil(grid_x), 1]);
    }
    case
}

fn cases_of(format: WeightFormat) -> Vec<TestCase> {
    let WeightFormat::Quant(format) = format else { return Vec::new() };
    let rms = OperandKind::Float { rms_norm: true };
    let named = ("any_format", Regime::ManyTiles);
    let of = |input| case(named, [1, 66, 544], format, input, EpilogueKind::default(), &CONFIGS);
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

pub(super) fn bench_case(
    [m, n, k]: [u32; 3],
    format: Format,
    float: bool,
    launches: fn(&Caps, &str) -> Vec<Launch>,
    buffers: impl FnOnce(Vec<BenchBuffer>) -> Vec<BenchBuffer>,
) -> BenchCase {
    let shape = IntShape { m, n, k };
    let (codes, scales) = int::bench_weights(n, k, format);
    let weight_bytes = 4 * (codes.len() + scales.len()) as u64;
    let (x_codes, x_scales) = int::seeded_codes(m, k, true, 1);
    let x_bytes = if float {
        4 * u64::from(m) * u64::from(k)
    } else {
        40 * u64::from(m) * u64::from(shape.num_blocks())
    };
    let x = if float {
        BenchBuffer::F32((m * k) as usize)
    } else {
        BenchBuffer::U32(bytemuck::pod_collect_to_vec(&x_codes))
    };
    let x_scales = BenchBuffer::U32(x_scales.into_iter().flatten().collect());
    let source = if float { "f32" } else { "int8" };
    BenchCase {
        name: format!("{m}x{n}x{k} {format} {source}"),
        buffers: buffers(vec![x, BenchBuffer::U32(codes), BenchBuffer::U32(scales), x_scales]),
        launches,
        bytes: weight_bytes + x_bytes + 4 * u64::from(m) * u64::from(n),
        flops: 2 * u64::from(m) * u64::from(n) * u64::from(k),
    }
}

/// Shape, format and whether x is f32, from a name that [`bench_case`] made.
pub(super) fn parse_bench(name: &str) -> Option<(IntShape, Format, bool)> {
    let mut words = name.split(' ');
    let mut dims = words.next()?.split('x').map(str::parse);
    let mut next = || dims.next()?.ok();
    let shape = IntShape { m: next()?, n: next()?, k: next()? };
    Some((shape, words.next()?.parse().ok()?, words.next()? == "f32"))
}

fn bench_launches(caps: &Caps, name: &str) -> Vec<Launch> {
    let Some((shape, format, float)) = parse_bench(name) else { return Vec::new() };
    let input = if float { OperandKind::Float { rms_norm: false } } else { OperandKind::Codes };
    let plain = EpilogueKind::default();
    let mut picks = vec![select(caps, shape, format, input, plain)];
    if caps.cpu_variants() {
        for rows in [2, 4, 8] {
            let config = Config { wg: LANES, rows, kind: Kind::Lanes };
            let pick = (choice(config, shape, format, input, plain), config.group_rows());
            if !picks.contains(&pick) {
                picks.push(pick);
            }
        }
    }
    let launch = |(choice, rows): (Choice, u32)| {
        let [grid_x, grid_y] = wrap(caps, shape.n.div_ceil(rows));
        let params = params(shape, shape.n, grid_x, [1.0, 1.0]);
        Launch { choice, params: bytemuck::bytes_of(&params).to_vec(), grid: [grid_x, grid_y, 1] }
    };
    picks.into_iter().map(launch).collect()
}

fn benches() -> Vec<BenchCase> {
    let shapes =
        [[1, 4096, 4096], [1, 14336, 4096], [4, 4096, 4096], [1, 2048, 2048], [1, 768, 2048], [1, 768, 768]];
    let more = |mut buffers: Vec<BenchBuffer>| {
        buffers.extend([BenchBuffer::F32(4), BenchBuffer::F32(4), BenchBuffer::F32(4)]);
        buffers
    };
    let mut all = Vec::new();
    for shape in shapes {
        for format in BENCH_FORMATS {
            for float in [true, false] {
                let [m, n, _] = shape;
                all.push(bench_case(shape, format, float, bench_launches, |buffers| {
                    let mut buffers = more(buffers);
                    buffers.push(BenchBuffer::F32((m * n) as usize));
                    buffers
                }));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tier;

    fn pick(caps: &Caps) -> (Choice, u32) {
        let shape = IntShape { m: 1, n: 4096, k: 4096 };
        select(caps, shape, Format::Q4_0, OperandKind::Codes, EpilogueKind::default())
    }

    #[test]
    fn selects_by_capability() {
        let baseline = Caps::baseline();
        let (choice, rows) = pick(&baseline);
        assert_eq!((choice.variant, choice.invocations, rows), ("portable", 128, 8));
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
                    let (choice, rows) = select(&caps, IntShape { m, n, k }, Format::Q4_0, input, glu);
                    let fits = choice.workgroup_bytes <= 16 << 10 && choice.invocations <= 128;
                    assert!(fits, "[{m}, {n}, {k}]: {}", choice.selection);
                    assert!(rows.is_multiple_of(2), "pairs of a gated unit lie in one workgroup");
                }
            }
        }
        for choice in choices() {
            assert!(choice.workgroup_bytes <= 16 << 10, "{}", choice.selection);
        }
    }
}

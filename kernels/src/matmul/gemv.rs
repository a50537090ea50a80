//! A few rows of activations times a matrix, with the normalisation before and the epilogue behind.

mod measured;
pub mod norm_add;
pub mod routed;

use girih_shaders::Selection;

use super::few_rows::{self, Candidates, Config, Kind, LANES, NARROW_LANES};
use super::product::{Epilogue, EpilogueKind, Params, Part, Shape, check_result};
use super::tuning;
use super::{QUANT_FORMATS, WeightFormat, or_dummy, parts, product, reference};
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Launch};
use crate::error::KernelError;
use crate::fused::Norm;
use crate::quant::Format;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, Tuning, read, read_write};
use crate::twin::TwinCall;

pub use super::few_rows::MAX_M;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NormKind {
    None,
    Rms,
    Layer { bias: bool },
}

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Activations `[M, K]`, M from 1 to [`MAX_M`].
    pub x: &'a Buffer,
    /// W, all of its rows.
    pub parts: &'a [Part<'a>],
    /// Before the product.
    pub norm: Norm<'a>,
    /// Behind the product.
    pub epilogue: Epilogue<'a>,
    /// Result `[M, N]`, or `[M, N / 2]` with a gated linear unit.
    pub y: &'a Buffer,
}

const SPEC: KernelSpec = KernelSpec {
    name: "gemv",
    bindings: &[read("x"), read("w"), read("w_scales"), read("vectors"), read("residual"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel = Kernel {
    spec: &SPEC,
    choices,
    cases,
    benches: super::bench::gemv,
    cases_of: Some(cases_of),
    tuning: Some(Tuning { ways: measured::ways, workload: measured::workload }),
    cost: Some(tuning::cost),
};

/// Appends `y = epilogue(norm(x) · Wᵀ)`, one dispatch for each part of W.
///
/// # Errors
/// M over [`MAX_M`], an odd N with a gated linear unit, vectors that are not [`in_one_binding`](super::in_one_binding),
/// buffers that are too short, and as [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, args: Args<'_>, shape: Shape) -> Result<(), KernelError> {
    let prepared = prepare(&SPEC, rec, &args, shape, None)?;
    for part in args.parts {
        let part_shape = Shape { n: part.rows, ..shape };
        let picked = select(rec.caps(), part_shape, part.format, prepared.norm, args.epilogue.kind());
        prepared.dispatch(&SPEC, rec, &args, part, picked, &[])?;
    }
    Ok(())
}

/// What the parts of a product share.
struct Prepared {
    norm: NormKind,
    vectors: Buffer,
    residual: Buffer,
    /// Those of a product with all of W.
    params: Params,
}

/// Checks what is common to the parts; `added` is the weight of a norm that comes before the norm.
fn prepare(
    spec: &KernelSpec,
    rec: &Recorder,
    args: &Args<'_>,
    shape: Shape,
    added: Option<&Buffer>,
) -> Result<Prepared, KernelError> {
    let Epilogue { bias, residual, act, .. } = args.epilogue;
    shape.check(spec.name, act.is_glu())?;
    if shape.m > MAX_M {
        let (got, must_be) = (shape.m.into(), "at most 4");
        return Err(KernelError::BadParam { kernel: spec.name, field: "m", got, must_be });
    }
    let (norm, norm_weight, norm_bias, eps) = match args.norm {
        Norm::None => (NormKind::None, None, None, 0.0),
        Norm::Rms { weight, eps } => (NormKind::Rms, Some(weight), None, eps),
        Norm::Layer { weight, bias, eps } => {
            (NormKind::Layer { bias: bias.is_some() }, Some(weight), bias, eps)
        }
    };
    let row_bytes = 4 * u64::from(shape.k);
    let x = ("x", Some(args.x), u64::from(shape.m) * row_bytes);
    let norm_vectors = [("norm_weight", norm_weight, row_bytes), ("norm_bias", norm_bias, row_bytes)];
    rows::check_sizes(
        spec.name,
        [x, norm_vectors[0], norm_vectors[1], ("norm_add_weight", added, row_bytes)],
    )?;
    check_result(spec.name, &args.epilogue, args.y, [shape.m, shape.n])?;
    let vectors = product::vectors(spec.name, rec.gpu(), [norm_weight, norm_bias, bias, added])?;
    let (vectors, [norm_weight_at, norm_bias_at, bias_at, norm_add_weight_at]) = vectors;
    let residual = or_dummy(rec.gpu(), residual)?;
    let params = Params {
        norm_weight_at,
        norm_bias_at,
        bias_at,
        norm_add_weight_at,
        eps,
        alpha: args.epilogue.alpha,
        soft_cap: act.cap(),
        glu_alpha: act.glu_alpha(),
        ..Params::plain(shape, act.columns(shape.n))
    };
    Ok(Prepared { norm, vectors, residual, params })
}

impl Prepared {
    /// Appends the product with one part; `more` is what the kernel binds behind y.
    fn dispatch(
        &self,
        spec: &'static KernelSpec,
        rec: &mut Recorder,
        args: &Args<'_>,
        part: &Part<'_>,
        (choice, config): (Choice, Config),
        more: &[&Buffer],
    ) -> Result<(), KernelError> {
        if self.params.num_m == 0 {
            return Ok(());
        }
        let grid = config.grid(rec.caps(), part.rows);
        let params = Params { grid_x: grid[0], num_n: part.rows, n_base: part.row0, ..self.params };
        let scales = part.scales(spec.name, rec.gpu(), self.params.num_k)?;
        let mut buffers = vec![args.x, part.buffer, &scales, &self.vectors, &self.residual, args.y];
        buffers.extend(more);
        rec.dispatch(spec, choice, &params, &buffers, grid)
    }
}

/// What `select` launches for a shape, without normalisation and epilogue, and on CPUs what it passes over.
pub(super) fn bench_launches(caps: &Caps, shape: Shape, format: WeightFormat) -> Vec<Launch> {
    let plain = EpilogueKind::default();
    let passed_over = CONFIGS
        .into_iter()
        .filter(|&config| caps.cpu_variants() && config.wg == LANES && is_planned(config, shape.m, format));
    let picks = std::iter::once(select(caps, shape, format, NormKind::None, plain))
        .chain(passed_over.map(|config| (choice(config, shape, format, NormKind::None, plain), config)));
    few_rows::bench_launches(caps, Params::plain(shape, shape.n), picks)
}

/// The measured winner, or what the rule says.
fn select(
    caps: &Caps,
    shape: Shape,
    format: WeightFormat,
    norm: NormKind,
    epilogue: EpilogueKind,
) -> (Choice, Config) {
    let of = |config| (choice(config, shape, format, norm, epilogue), config);
    let class = || class(shape, norm);
    let winner =
        caps.winner(SPEC.name, Data::Weights(format), class, || CANDIDATES.on(caps, SPEC.name, format));
    let tuned = winner.map(of).filter(|(choice, _)| caps.runs(choice));
    tuned.unwrap_or_else(|| rule(caps, shape, format, norm, epilogue))
}

/// What is measured.
const CANDIDATES: Candidates = Candidates {
    lanes: &[(LANES, 2), (LANES, 4), (NARROW_LANES, 2), (NARROW_LANES, 4)],
    wide: &[2, 4],
    cpu: (&[8], &[2, 4, 8]),
    gpu: (&[64, 128], &[2, 4, 8]),
};

/// Shapes and norms that have a winner of their own.
fn class(Shape { m, n, k }: Shape, norm: NormKind) -> String {
    let norm = match norm {
        NormKind::None => "",
        NormKind::Rms => "/rms",
        NormKind::Layer { .. } => "/layer",
    };
    format!("{m}x{n}x{k}{norm}")
}

fn rule(
    caps: &Caps,
    shape: Shape,
    format: WeightFormat,
    norm: NormKind,
    epilogue: EpilogueKind,
) -> (Choice, Config) {
    let data = Data::Weights(format);
    let allowed = |variant: &str| caps.subgroups() && !caps.is_blocked(SPEC.name, variant, data);
    let kind = if allowed("subgroup") { Kind::Subgroup } else { Kind::Portable };
    let lanes = caps.subgroup_size.map_or(1, |(smallest, _)| smallest);
    // Measured on lavapipe: f32 weights are bound by memory, which prefers fewer streams, quantised ones and more rows of x by
    // registers.
    let half = matches!(format, WeightFormat::F16 | WeightFormat::Bf16);
    let few_streams = if half && 4 * shape.m <= MOST_SUMS_OF_A_LANE { 4 } else { 2 };
    let wide = caps.int64 && matches!(format, WeightFormat::Quant(_)) && allowed("lanes_int64");
    let config = if caps.cpu_variants() && lanes >= LANES && wide {
        Config::wide_lanes(LANES, 2)
    } else if caps.cpu_variants() && lanes >= NARROW_LANES && allowed("lanes_subgroup") {
        if lanes < LANES { Config::lanes(NARROW_LANES, 2) } else { Config::lanes(LANES, few_streams) }
    } else if caps.cpu_variants() {
        Config { wg: 8, rows: if format == WeightFormat::F32 { 2 } else { 4 }, kind }
    } else {
        // Long rows feed more invocations; many rows leave enough workgroups when four of them share one.
        let wg = if shape.k >= 2048 { 128 } else { 64 };
        Config { wg, rows: if shape.n >= 4096 { 4 } else { 2 }, kind }
    };
    (choice(config, shape, format, norm, epilogue), config)
}

fn choice(
    config: Config,
    shape: Shape,
    format: WeightFormat,
    norm: NormKind,
    epilogue: EpilogueKind,
) -> Choice {
    let cols = shape.m;
    let rms_sums = if norm == NormKind::Rms { cols } else { 0 };
    let mut selection = parts(Selection::new(), format, shape.aligned())
        .set("COLS", cols)
        .set("RMS_SUMS", rms_sums)
        .set("LAYER_NORM", matches!(norm, NormKind::Layer { .. }))
        .set("LAYER_NORM_BIAS", norm == NormKind::Layer { bias: true });
    if norm != NormKind::None {
        let file = if shape.aligned() { "matmul/norm_vec4.wgsl" } else { "matmul/norm_scalar.wgsl" };
        selection = selection.part("norm", file);
        if shape.aligned() {
            selection = selection.part("vectors", "matmul/vectors4.wgsl");
        }
    }
    if let WeightFormat::Quant(format) = format {
        selection = if config.has_lanes() {
            selection
                .part("products", "quant/gemv_products.wgsl")
                .part("lane_weights", "quant/lane_weights.wgsl")
                .set("F16_BELOW_NORMAL", true)
        } else {
            selection.part("products", "quant/gemv_factored.wgsl").set("STEP8", step8(shape, format))
        };
    }
    if config.kind == Kind::WideLanes {
        selection = selection.part("words", "quant/words_int64.wgsl");
        if shape.aligned() {
            selection = selection.part("x_vec4", "matmul/x_int64.wgsl");
            if norm != NormKind::None {
                selection = selection.part("vectors", "matmul/vectors_int64.wgsl");
            }
        }
    }
    let files = ["matmul/gemv.wgsl", "matmul/gemv_lanes.wgsl"];
    let num_sums = config.rows * cols + rms_sums;
    config.choice(files, num_sums, epilogue.apply(selection), Data::Weights(format))
}

/// Groups of 8 channels at a time: two where they share their scale and x of few rows leaves registers.
fn step8(shape: Shape, format: Format) -> u32 {
    let shared = format.group == Format::ROW || format.group.is_multiple_of(16);
    if shared && shape.k.is_multiple_of(16) && shape.m <= 2 { 2 } else { 1 }
}

/// Four rows of W and more than two of x were no faster than two, and took a CPU driver twice as long to compile.
const MOST_SUMS_OF_A_LANE: u32 = 8;

const CONFIGS: [Config; 8] = [
    Config::portable(64, 2),
    Config::subgroup(128, 4),
    Config::portable(8, 4),
    Config::subgroup(8, 4),
    Config::lanes(LANES, 2),
    Config::lanes(LANES, 4),
    Config::lanes(NARROW_LANES, 2),
    Config::wide_lanes(LANES, 2),
];

/// Whether `select` gives a configuration to `m` rows and weights of a format.
fn is_planned(config: Config, m: u32, format: WeightFormat) -> bool {
    let quantised = matches!(format, WeightFormat::Quant(_));
    let sums = if config.has_lanes() { config.rows * m } else { 0 };
    sums <= MOST_SUMS_OF_A_LANE && (config.kind != Kind::WideLanes || quantised)
}

fn choices() -> Vec<Choice> {
    let norms =
        [NormKind::None, NormKind::Rms, NormKind::Layer { bias: false }, NormKind::Layer { bias: true }];
    let mut all = Vec::new();
    for config in CONFIGS {
        for format in WeightFormat::DENSE {
            for (k, norm) in [64, 63].into_iter().flat_map(|k| norms.map(|norm| (k, norm))) {
                for m in [1, MAX_M].into_iter().filter(|&m| is_planned(config, m, format)) {
                    let shape = Shape { m, n: 64, k };
                    all.push(choice(config, shape, format, norm, EpilogueKind::default()));
                }
            }
        }
        for (i, format) in QUANT_FORMATS.into_iter().enumerate() {
            let shape = Shape { m: if i % 3 == 0 { MAX_M } else { 1 }, n: 64, k: 64 - i as u32 % 2 };
            all.push(choice(config, shape, format.into(), norms[i % 4], EpilogueKind::default()));
        }
        let acts = if is_planned(config, 1, WeightFormat::F16) { 0..9 } else { 0..0 };
        for act in acts {
            for glu in [false, true] {
                let epilogue = EpilogueKind { act, glu, bias: true, residual: true };
                let shape = Shape { m: 1, n: 64, k: 64 };
                all.push(choice(config, shape, WeightFormat::F16, NormKind::None, epilogue));
            }
        }
    }
    all
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let x: Vec<f32> = call.get(0);
    let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
    twin_of(call, &x);
}

/// The same with x given apart.
fn twin_of(call: &mut TwinCall<'_>, x: &[f64]) {
    let p: Params = call.params();
    let s = call.selection;
    let (num_k, padded) = (p.num_k as usize, 8 * p.num_k8 as usize);
    let w = reference::weights(call, [1, 2], p.num_k);
    let vectors: Vec<f32> = call.get(3);
    let (norm_weight, norm_bias) =
        (&vectors[p.norm_weight_at as usize..], &vectors[p.norm_bias_at as usize..]);
    let finish = reference::finish_product(call, &p);
    let mut y: Vec<f32> = call.get(5);
    for (row, x) in x.chunks_exact(num_k).take(s.get_u32("COLS").unwrap_or(1) as usize).enumerate() {
        let mut x = x.to_vec();
        let mean = if s.get_bool("LAYER_NORM") { x.iter().sum::<f64>() / num_k as f64 } else { 0.0 };
        for v in &mut x {
            *v -= mean;
        }
        if s.get_bool("LAYER_NORM") || s.get_u32("RMS_SUMS").is_some_and(|n| n > 0) {
            let mean_sq = x.iter().map(|v| v * v).sum::<f64>() / num_k as f64;
            let scale = 1.0 / (mean_sq + f64::from(p.eps)).sqrt();
            for (i, v) in x.iter_mut().enumerate() {
                *v *= scale * f64::from(norm_weight[i]);
                if s.get_bool("LAYER_NORM_BIAS") {
                    *v += f64::from(norm_bias[i]);
                }
            }
        }
        let sums: Vec<f64> =
            w.chunks_exact(padded).take(p.num_n as usize).map(|w| reference::dot(&x, w)).collect();
        finish.store(&mut y, row, p.n_base as usize, &sums);
    }
    call.put(5, &y);
}

/// A case with weights of a format.
fn case(
    (name, regime): (&str, Regime),
    (shape, format): (Shape, WeightFormat),
    norm: NormKind,
    epilogue: EpilogueKind,
    configs: &[Config],
) -> TestCase {
    let Shape { m, n, k } = shape;
    let [weights, scales] = reference::seeded_weights(n, k, format, 2);
    let y_stride = epilogue.columns(n);
    // Layer normalisation meets an offset far larger than the spread.
    let offset = if matches!(norm, NormKind::Layer { .. }) { 50.0 } else { 0.0 };
    let x: Vec<f32> = seeded((m * k) as usize, 1).into_iter().map(|v| v + offset).collect();
    let scale = 4.0 * if epilogue.glu { 10.0 } else { 1.0 } * (1.0 + f64::from(offset) / 4.0);
    let [norm_weight, norm_bias, bias] = [(k, 3), (k, 4), (n, 5)].map(|(n, seed)| seeded(n as usize, seed));
    let (vectors, [norm_weight_at, norm_bias_at, bias_at]) = product::join([&norm_weight, &norm_bias, &bias]);
    let mut case = TestCase::new(name, regime, Tolerance::f32_sum(k as usize, scale))
        .input(&x)
        .input(&weights)
        .input(&scales)
        .input(&vectors)
        .input(&seeded((m * y_stride) as usize, 6))
        .output((m * y_stride) as usize);
    for &config in configs.iter().filter(|&&config| is_planned(config, m, format)) {
        let grid = config.grid_of_case(n);
        let params = Params {
            grid_x: grid[0],
            norm_weight_at,
            norm_bias_at,
            bias_at,
            ..Params::of_case(shape, epilogue)
        };
        case = case.launch(choice(config, shape, format, norm, epilogue), &params, grid);
    }
    case
}

fn cases_of(format: WeightFormat) -> Vec<TestCase> {
    let shape = Shape { m: 1, n: 66, k: 544 };
    vec![case(
        ("any_format", Regime::ManyTiles),
        (shape, format),
        NormKind::Rms,
        EpilogueKind::default(),
        &every_config(),
    )]
}

/// All that is tested, and all that may become a winner.
fn every_config() -> Vec<Config> {
    CANDIDATES.with(&CONFIGS)
}

fn cases() -> Vec<TestCase> {
    use NormKind::{Layer, None, Rms};
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let plain = EpilogueKind::default();
    let glu = |act| EpilogueKind { act, glu: true, bias: true, residual: true };
    let full = |act| EpilogueKind { act, glu: false, bias: true, residual: true };
    let shape = |m, n, k, format| (Shape { m, n, k }, format);
    let quant = |m, n, k, format: Format| shape(m, n, k, format.into());
    let (f32, f16, bf16) = (WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16);
    let one = &CONFIGS[3..];
    let lanes = &CONFIGS[5..];
    let small_groups = QUANT_FORMATS[15];
    let mut cases = vec![
        case(("gpt_oss_20b", Model), shape(1, 96, 2880, f16), Rms, full(1), &CONFIGS),
        case(("one_tile", OneTile), shape(1, 4, 8, f32), None, plain, &CONFIGS),
        case(("one_by_one", OneTile), shape(1, 1, 1, f32), None, plain, &CONFIGS),
        case(("candidates", PartialTile), shape(1, 67, 264, f16), Rms, full(1), &every_config()),
        case(("odd", PartialTile), shape(3, 37, 131, f16), Rms, full(2), &CONFIGS),
        case(("many_tiles", ManyTiles), shape(4, 98, 520, bf16), Layer { bias: true }, glu(1), &CONFIGS),
        case(("partial_group", PartialTile), shape(2, 35, 12, f16), Rms, full(5), one),
        case(("layer_norm_odd", PartialTile), shape(1, 66, 257, f32), Layer { bias: false }, glu(3), one),
        case(
            ("layer_norm_bias_odd", PartialTile),
            shape(2, 18, 33, bf16),
            Layer { bias: true },
            full(4),
            one,
        ),
        case(("llama_1b_gate_up", Model), shape(1, 128, 2048, bf16), Rms, glu(1), one),
        case(("q4_0", PartialTile), quant(1, 66, 288, Format::Q4_0), Rms, full(1), &CONFIGS),
        case(
            ("int4_layer_norm_odd", PartialTile),
            quant(2, 34, 30, small_groups),
            Layer { bias: true },
            glu(1),
            &CONFIGS[1..2],
        ),
        case(
            ("int8_layer_norm_odd", PartialTile),
            quant(4, 33, 30, Format::Q8_0),
            Layer { bias: true },
            full(2),
            lanes,
        ),
    ];
    // On CPUs scales and codes of each format are read in a way of their own.
    for format in QUANT_FORMATS {
        let of = (format!("lanes_{format}"), ManyTiles);
        cases.push(case((&of.0, of.1), shape(1, 34, 600, format.into()), None, plain, &CONFIGS[7..]));
    }
    for format in [Format::Q4_K, Format::Q5_0, Format::Q6_K, Format::MXFP4] {
        let of = (format!("four_lanes_{format}"), ManyTiles);
        let narrow = [CONFIGS[4], CONFIGS[6]];
        cases.push(case((&of.0, of.1), shape(1, 17, 600, format.into()), None, plain, &narrow));
    }
    // Every reader of weights in every regime, with pipelines that the cases above have compiled.
    let layer = Layer { bias: true };
    for (name, regime, n, k) in [
        ("one_tile", OneTile, 2, 32),
        ("partial_tile", PartialTile, 34, 40),
        ("many_tiles", ManyTiles, 98, 544),
    ] {
        let k32 = k / 32 * 32;
        cases.extend([
            case((&format!("f32_{name}"), regime), shape(1, n, k, f32), None, plain, &CONFIGS),
            case((&format!("f16_{name}"), regime), shape(1, n, k, f16), Rms, full(1), &CONFIGS),
            case((&format!("bf16_{name}"), regime), shape(4, n, k, bf16), layer, glu(1), &CONFIGS),
            case((&format!("q4_0_{name}"), regime), quant(1, n, k32, Format::Q4_0), Rms, full(1), &CONFIGS),
        ]);
    }
    cases.extend([
        case(("llama_1b_f32", Model), shape(1, 64, 2048, f32), None, plain, &CONFIGS),
        case(("llama_1b_bf16", Model), shape(4, 64, 2048, bf16), layer, glu(1), &CONFIGS),
        case(("llama_1b_q4_0", Model), quant(1, 64, 2048, Format::Q4_0), Rms, full(1), &CONFIGS),
    ]);
    // The other formats, also through `load_w8`; the channels end within a block, a group and a super-group.
    for (i, format) in QUANT_FORMATS.into_iter().enumerate().skip(2) {
        let k = [40, 264, 288, 1030][i % 4];
        let configs = [CONFIGS[i % 2], CONFIGS[4]];
        cases.push(case((&format.to_string(), PartialTile), quant(1, 35, k, format), None, plain, &configs));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tier;

    fn pick(caps: &Caps) -> (Choice, Config) {
        let shape = Shape { m: 1, n: 4096, k: 4096 };
        select(caps, shape, WeightFormat::F16, NormKind::Rms, EpilogueKind::default())
    }

    #[test]
    fn selects_by_capability() {
        let baseline = Caps::baseline();
        let (choice, config) = pick(&baseline);
        assert_eq!((choice.variant, config), ("portable", Config::portable(128, 4)));
        assert!(choice.workgroup_bytes <= baseline.workgroup_bytes);
        let mut gpu = Caps { subgroup_size: Some((32, 32)), tier: Tier::Subgroup, ..baseline };
        assert_eq!(pick(&gpu).0.variant, "subgroup");
        gpu.blocked.insert("gemv/subgroup".into());
        assert_eq!(pick(&gpu).0.variant, "portable");
        let cpu = Caps { subgroup_size: Some((8, 8)), tier: Tier::Cpu, is_cpu: true, ..Caps::baseline() };
        assert_eq!((pick(&cpu).0.variant, pick(&cpu).0.invocations), ("lanes_subgroup", 8));
        let narrow = Caps { subgroup_size: Some((4, 4)), ..cpu };
        assert_eq!((pick(&narrow).0.variant, pick(&narrow).0.invocations), ("lanes_subgroup", 4));
    }

    #[test]
    fn every_choice_fits_the_baseline() {
        for choice in choices() {
            assert!(choice.workgroup_bytes <= 16 << 10, "{}", choice.selection);
        }
    }
}

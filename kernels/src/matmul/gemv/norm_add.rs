//! The norm behind the block before, the residual stream and the norm in front of the product, in one dispatch with a product
//! of a few short rows.
//!
//! Models that normalise what a block returns (Gemma 2 and 3, GLM 4, OLMo 2) have a row's norm between any two products,
//! a dispatch of one workgroup for which the device waits. Here each workgroup of the product repeats it. That reads
//! x, its weight and the stream once more in every workgroup, which [`pays`] weighs against the dispatch.

use super::super::few_rows::{self, Config, Kind};
use super::super::product::{self, EpilogueKind, Params, Shape};
use super::super::tuning::{self, Recorded};
use super::super::{QUANT_FORMATS, WeightFormat, reference};
use super::{Args, CANDIDATES, MAX_M, NormKind, class, measured, prepare};
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{POISON, Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Launch};
use crate::error::KernelError;
use crate::quant::Format;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Contents, Cost, Kernel, KernelSpec, Tuning, Ways, Workload, read, read_write};
use crate::twin::TwinCall;

/// The norm behind the block before: x becomes `stream + x / sqrt(mean(x²) + eps) · weight`.
#[derive(Clone, Copy, Debug)]
pub struct NormAdd<'a> {
    /// `[K]`
    pub weight: &'a Buffer,
    /// Added to the mean square.
    pub eps: f32,
    /// Residual stream `[M, K]`.
    pub stream: &'a Buffer,
    /// What x became `[M, K]`.
    pub sum: &'a Buffer,
}

const SPEC: KernelSpec = KernelSpec {
    name: "norm_add_gemv",
    bindings: &[
        read("x"),
        read("w"),
        read("w_scales"),
        read("vectors"),
        read("residual"),
        read_write("y"),
        read("stream"),
        read_write("sum"),
    ],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel = Kernel {
    spec: &SPEC,
    choices,
    cases,
    benches: super::super::bench::norm_add,
    cases_of: Some(cases_of),
    tuning: Some(Tuning { ways, workload }),
    cost: Some(cost),
};

/// Bytes that the workgroups of a product may read for the norm, all together, and where host and device share their
/// memory. A discrete GPU's second-level cache gives 1 to 4 TB/s, so this is 2 to 8 us; a dispatch of one workgroup that
/// others wait for takes as long. Estimated, not measured.
const REPEATED_BYTES: u64 = 8 << 20;
const REPEATED_BYTES_UNIFIED: u64 = 2 << 20;

/// Whether one dispatch is to be preferred, for a matrix of parts of so many rows and formats: there are few rows, K is a multiple of 8, and the workgroups repeat little.
/// Never where lanes own rows (on CPUs): two dispatches are cheap there.
pub fn pays(caps: &Caps, shape: Shape, parts: impl IntoIterator<Item = (u32, WeightFormat)>) -> bool {
    let most = if caps.unified_memory { REPEATED_BYTES_UNIFIED } else { REPEATED_BYTES };
    let row_bytes = 4 * u64::from(shape.k);
    let mut bytes = 0;
    for (rows, format) in parts {
        let shape = Shape { n: rows, ..shape };
        let (_, config) = super::rule(caps, shape, format, NormKind::None, EpilogueKind::default());
        if config.has_lanes() || caps.is_blocked(SPEC.name, config.variant(), Data::Weights(format)) {
            return false;
        }
        let groups = u64::from(rows.div_ceil(config.group_rows()));
        bytes += groups * row_bytes * u64::from(2 * shape.m + 1);
    }
    shape.m <= MAX_M && shape.aligned() && bytes <= most
}

/// Appends `s = stream + x / sqrt(mean(x²) + eps) · weight` and `y = epilogue(norm(s) · Wᵀ)`, one dispatch for each part of W.
///
/// # Errors
/// As [`gemv`](super::record); K that is no multiple of 8, a layer norm in front of the product.
pub fn record(rec: &mut Recorder, args: Args<'_>, add: NormAdd<'_>, shape: Shape) -> Result<(), KernelError> {
    if !shape.aligned() {
        let (got, must_be) = (shape.k.into(), "a multiple of 8");
        return Err(KernelError::BadParam { kernel: SPEC.name, field: "k", got, must_be });
    }
    let mut prepared = prepare(&SPEC, rec, &args, shape, Some(add.weight))?;
    if matches!(prepared.norm, NormKind::Layer { .. }) {
        let must_be = "an RMS norm, or none";
        return Err(KernelError::BadParam { kernel: SPEC.name, field: "layer norms", got: 1, must_be });
    }
    let bytes = 4 * u64::from(shape.m) * u64::from(shape.k);
    rows::check_sizes(SPEC.name, [("stream", Some(add.stream), bytes), ("sum", Some(add.sum), bytes)])?;
    prepared.params.norm_add_eps = add.eps;
    for part in args.parts {
        let part_shape = Shape { n: part.rows, ..shape };
        let picked = select(rec.caps(), part_shape, part.format, prepared.norm, args.epilogue.kind());
        prepared.dispatch(&SPEC, rec, &args, part, picked, &[add.stream, add.sum])?;
    }
    Ok(())
}

/// What `select` launches for a shape, with an RMS norm and no epilogue.
pub(in super::super) fn bench_launches(caps: &Caps, shape: Shape, format: WeightFormat) -> Vec<Launch> {
    let pick = select(caps, shape, format, NormKind::Rms, EpilogueKind::default());
    let eps = 1e-6;
    let plain = Params::plain(shape, shape.n);
    let params = Params { norm_add_weight_at: shape.k, norm_add_eps: eps, eps, ..plain };
    few_rows::bench_launches(caps, params, [pick])
}

/// The measured winner, or what the rule says.
fn select(
    caps: &Caps,
    shape: Shape,
    format: WeightFormat,
    norm: NormKind,
    epilogue: EpilogueKind,
) -> (Choice, Config) {
    let data = Data::Weights(format);
    let winner = caps.winner(SPEC.name, data, || class(shape, norm), || candidates(caps, format));
    let of = |config| (choice(config, shape, format, norm, epilogue), config);
    let tuned = winner.map(of).filter(|(choice, _)| caps.runs(choice));
    tuned.unwrap_or_else(|| of(rule(caps, shape, format, norm, epilogue)))
}

/// What the product alone would take, with a workgroup for its rows.
fn rule(caps: &Caps, shape: Shape, format: WeightFormat, norm: NormKind, epilogue: EpilogueKind) -> Config {
    let (_, config) = super::rule(caps, shape, format, norm, epilogue);
    let subgroup = caps.subgroups() && !caps.is_blocked(SPEC.name, "subgroup", Data::Weights(format));
    let kind = if subgroup { Kind::Subgroup } else { Kind::Portable };
    if config.has_lanes() { Config { wg: 8, rows: 4, kind } } else { Config { kind, ..config } }
}

fn candidates(caps: &Caps, format: WeightFormat) -> Vec<Config> {
    let mut all = CANDIDATES.on(caps, SPEC.name, format);
    all.retain(|config| !config.has_lanes());
    all
}

fn choice(
    config: Config,
    shape: Shape,
    format: WeightFormat,
    norm: NormKind,
    epilogue: EpilogueKind,
) -> Choice {
    let mut choice = super::choice(config, shape, format, norm, epilogue);
    choice.selection = choice
        .selection
        .set("NORM_ADD", true)
        .part("norm_add", "matmul/norm_add.wgsl")
        .part("vectors", "matmul/vectors4.wgsl");
    choice
}

/// The configurations for what was recorded.
fn ways(caps: &Caps, launch: &Launch) -> Option<Ways> {
    let recorded = Recorded::of(launch)?.with_norm_vectors();
    let Recorded { shape, format, epilogue, .. } = recorded;
    let norm = measured::norm_of(&launch.choice);
    let rule = rule(caps, shape, format, norm, epilogue);
    let configs = tuning::rule_first(rule, candidates(caps, format));
    let choice = |config| choice(config, shape, format, norm, epilogue);
    Some(Ways { shape: class(shape, norm), ways: recorded.ways_of_few_rows(caps, &SPEC, configs, choice) })
}

/// Data of its shape.
fn workload(caps: &Caps, launch: &Launch) -> Option<Workload> {
    let recorded = Recorded::of(launch)?.with_norm_vectors();
    let Recorded { shape, format, epilogue, .. } = recorded;
    let norm = measured::norm_of(&launch.choice);
    let config = rule(caps, shape, format, norm, epilogue);
    let [norm_weight, norm_bias, add_weight] = [3, 4, 7].map(|seed| seeded(shape.k as usize, seed));
    let (vectors, _) = product::join([&norm_weight, &norm_bias, &recorded.bias(), &add_weight]);
    let choice = choice(config, shape, format, norm, epilogue);
    let mut workload = recorded.workload(recorded.x(), recorded.weights(), &vectors, choice);
    let len = (recorded.sample().m * shape.k) as usize;
    let bytes = 4 * u64::from(shape.m) * u64::from(shape.k);
    workload.buffers.push(Contents::repeated(&seeded(len, 8), bytes));
    workload.buffers.push(Contents::repeated(&vec![POISON; len], bytes));
    Some(workload)
}

/// That of the product, with stream, sum and weight once.
fn cost(launch: &Launch, sizes: &[u64], subgroup: u32) -> Cost {
    let cost = tuning::cost(launch, sizes, subgroup);
    let rows = Recorded::of(launch).map_or(0, |r| u64::from(2 * r.shape.m + 1) * u64::from(r.shape.k));
    Cost { bytes: cost.bytes + 4 * rows, ..cost }
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let num_k = p.num_k as usize;
    let (x, vectors, stream): (Vec<f32>, Vec<f32>, Vec<f32>) = (call.get(0), call.get(3), call.get(6));
    let weight = &vectors[p.norm_add_weight_at as usize..];
    let rows = call.selection.get_u32("COLS").unwrap_or(1) as usize;
    let mut sum = Vec::new();
    for (x, stream) in x.chunks_exact(num_k).zip(stream.chunks_exact(num_k)).take(rows) {
        let mean_sq = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / num_k as f64;
        let scale = 1.0 / (mean_sq + f64::from(p.norm_add_eps)).sqrt();
        let row = x.iter().zip(stream).zip(weight);
        sum.extend(row.map(|((&x, &s), &w)| f64::from(s) + f64::from(x) * scale * f64::from(w)));
    }
    super::twin_of(call, &sum);
    // The other parts of a matrix leave it to the first.
    if p.n_base == 0 {
        let mut kept: Vec<f32> = call.get(7);
        for (kept, sum) in kept.iter_mut().zip(sum) {
            *kept = sum as f32;
        }
        call.put(7, &kept);
    }
}

const CONFIGS: [Config; 2] = [Config::portable(64, 2), Config::subgroup(64, 2)];
const NORMS: [NormKind; 2] = [NormKind::Rms, NormKind::None];

fn choices() -> Vec<Choice> {
    let mut all = Vec::new();
    let formats = WeightFormat::DENSE.into_iter().chain(QUANT_FORMATS.map(WeightFormat::from));
    for (i, format) in formats.enumerate() {
        for (config, m) in CONFIGS.into_iter().zip([1, 2]) {
            let shape = Shape { m, n: 64, k: 64 };
            all.push(choice(config, shape, format, NORMS[i % 2], EpilogueKind::default()));
        }
    }
    all
}

/// A case with the rows of W from `n_base` on.
fn case(
    (name, regime): (&str, Regime),
    (shape, format): (Shape, WeightFormat),
    (norm, epilogue): (NormKind, EpilogueKind),
    n_base: u32,
    configs: &[Config],
) -> TestCase {
    let Shape { m, n, k } = shape;
    let [weights, scales] = reference::seeded_weights(n, k, format, 2);
    let y_stride = epilogue.columns(n_base + n);
    let [norm_weight, bias, add_weight] =
        [(k, 3), (n_base + n, 5), (k, 7)].map(|(n, seed)| seeded(n as usize, seed));
    let (vectors, [norm_weight_at, bias_at, norm_add_weight_at]) =
        product::join([&norm_weight, &bias, &add_weight]);
    // The sum is up to twice as large as x.
    let scale = 8.0 * if epilogue.glu { 20.0 } else { 1.0 };
    let mut case = TestCase::new(name, regime, Tolerance::f32_sum(k as usize, scale))
        .input(&seeded((m * k) as usize, 1))
        .input(&weights)
        .input(&scales)
        .input(&vectors)
        .input(&seeded((m * y_stride) as usize, 6))
        .output((m * y_stride) as usize)
        .input(&seeded((m * k) as usize, 8))
        .output((m * k) as usize);
    for &config in configs {
        let grid = config.grid_of_case(n);
        let params = Params {
            grid_x: grid[0],
            n_base,
            y_stride,
            norm_weight_at,
            bias_at,
            norm_add_weight_at,
            norm_add_eps: 1e-3,
            ..Params::of_case(shape, epilogue)
        };
        case = case.launch(choice(config, shape, format, norm, epilogue), &params, grid);
    }
    case
}

/// All that may be selected.
fn cases_of(format: WeightFormat) -> Vec<TestCase> {
    let mut every = CANDIDATES.with(&[Config::subgroup(8, 4), Config::portable(8, 4)]);
    every.retain(|config| !config.has_lanes());
    let before = (NormKind::Rms, EpilogueKind::default());
    let shape = Shape { m: 1, n: 66, k: 544 };
    vec![case(("any_format", Regime::ManyTiles), (shape, format), before, 0, &every)]
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let [rms, none] = NORMS;
    let plain = EpilogueKind::default();
    let full = EpilogueKind { act: 1, glu: false, bias: true, residual: true };
    let glu = EpilogueKind { act: 3, glu: true, bias: false, residual: false };
    let (f32, f16, bf16) = (WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16);
    let mut cases = Vec::new();
    // Every reader of weights in every regime; a pipeline serves all four. The model is Gemma 3 270M.
    for (regime, n, k) in [(OneTile, 2, 32), (PartialTile, 34, 96), (ManyTiles, 98, 544), (Model, 66, 640)] {
        for (name, format, m, norm, epilogue) in [
            ("f32", f32, 1, rms, plain),
            ("f16", f16, 2, rms, full),
            ("bf16", bf16, 1, none, plain),
            ("q5_0", Format::Q5_0.into(), 1, rms, glu),
        ] {
            let (name, shape) = (format!("{name}_{k}"), Shape { m, n, k });
            cases.push(case((&name, regime), (shape, format), (norm, epilogue), 0, &CONFIGS));
        }
    }
    let quant = |m, n, k, format: Format| (Shape { m, n, k }, WeightFormat::from(format));
    // Rows behind those of another part leave the sum to it; the most rows of x; what a CPU would take.
    cases.extend([
        case(("second_part", PartialTile), quant(1, 34, 288, Format::Q8_0), (rms, full), 6, &CONFIGS[1..]),
        case(
            ("four_rows", PartialTile),
            quant(MAX_M, 18, 512, Format::Q4_K),
            (rms, plain),
            0,
            &[Config::subgroup(8, 4)],
        ),
    ]);
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tier;

    #[test]
    fn short_rows_pay_on_gpus() {
        let gpu = Caps { subgroup_size: Some((32, 32)), tier: Tier::Subgroup, ..Caps::baseline() };
        let pays_for = |caps: &Caps, m, n, k| pays(caps, Shape { m, n, k }, [(n, Format::Q4_0.into())]);
        // Gemma 3 270M and 4B; few rows of x; K that is no whole groups.
        assert!(pays_for(&gpu, 1, 4096, 640));
        assert!(!pays_for(&gpu, 1, 20480, 2560));
        assert!(pays_for(&gpu, MAX_M, 512, 640));
        assert!(!pays_for(&gpu, MAX_M + 1, 512, 640));
        assert!(!pays_for(&gpu, 1, 512, 644));
        let unified = Caps { unified_memory: true, ..gpu.clone() };
        assert!(!pays_for(&unified, 1, 4096, 640));
        let mut blocked = gpu.clone();
        blocked.blocked.insert("norm_add_gemv/subgroup".into());
        assert!(!pays_for(&blocked, 1, 4096, 640));
        let cpu = Caps { subgroup_size: Some((8, 8)), tier: Tier::Cpu, is_cpu: true, ..Caps::baseline() };
        assert!(!pays_for(&cpu, 1, 512, 640));
    }
}

//! The products of few tokens with the experts that they go to: only those experts' weights are read.
//!
//! Along z a workgroup takes a slot, one choice of one token, or all slots of a token, whose products it adds up in the order of
//! the slots.

use super::super::experts::{self, ExpertShape, XRows};
use super::super::few_rows::Config;
use super::super::product::{self, Epilogue, EpilogueKind, Params, Part};
use super::super::{QUANT_FORMATS, WeightFormat, or_dummy, reference};
use super::{CONFIGS, NormKind};
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Launch};
use crate::error::KernelError;
use crate::fused::Norm;
use crate::quant::Format;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Activations, as [`XRows`] says.
    pub x: &'a Buffer,
    /// W of all experts, each part with whole ones.
    pub parts: &'a [Part<'a>],
    /// Before the product: none, or an RMS norm of the rows of tokens.
    pub norm: Norm<'a>,
    /// Behind the product; its bias is `[E, N]`. A residual has only a sum, which has one part.
    pub epilogue: Epilogue<'a>,
    /// `[T, S]` of expert and bits of its weight. Slots whose expert is none of E are left out: their rows of y keep what they
    /// held.
    pub routes: &'a Buffer,
    /// Result, as [`XRows`] says.
    pub y: &'a Buffer,
}

const SPEC: KernelSpec = KernelSpec {
    name: "routed_gemv",
    bindings: &[
        read("x"),
        read("w"),
        read("w_scales"),
        read("vectors"),
        read("residual"),
        read_write("y"),
        read("routes"),
    ],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel = Kernel {
    spec: &SPEC,
    choices,
    cases,
    benches: experts::bench::routed,
    cases_of: Some(cases_of),
    tuning: None,
    cost: Some(experts::routed_cost),
};

/// Appends `y[s] = epilogue(norm(x) · W[e]ᵀ)` of each slot s, whose expert is e, or their weighted sum
/// `y[t] = residual + alpha Σ_j weight (x · W[e]ᵀ + bias[e])` of each token; one dispatch for each part of W.
///
/// # Errors
/// Shapes and parts that do not fit, buffers that are too short, more slots than workgroups along an axis, a layer norm, a norm
/// of slots, a sum with an activation or several parts, and as [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, args: Args<'_>, shape: ExpertShape, x: XRows) -> Result<(), KernelError> {
    let kernel = SPEC.name;
    shape.check(kernel, x, args.parts, &args.epilogue, args.y)?;
    let bad = |field, got: u64, must_be| Err(KernelError::BadParam { kernel, field, got, must_be });
    let (norm, norm_weight, eps) = match args.norm {
        Norm::None => (NormKind::None, None, 0.0),
        Norm::Rms { weight, eps } if x == XRows::Tokens => (NormKind::Rms, Some(weight), eps),
        _ => return bad("norms of slots, or layer norms", 1, "an RMS norm of tokens, or none"),
    };
    if shape.tokens == 0 {
        return Ok(());
    }
    let z = if x == XRows::Weighted { shape.tokens.into() } else { shape.num_slots() };
    if z > u64::from(rec.caps().workgroups) {
        return bad("slots", z, "at most the workgroups along an axis");
    }
    let x_bytes = rows::product([4, shape.x_rows(x), shape.k.into()]);
    let routes_bytes = rows::product([8, shape.num_slots()]);
    rows::check_sizes(
        kernel,
        [
            ("x", Some(args.x), x_bytes),
            ("norm_weight", norm_weight, 4 * u64::from(shape.k)),
            ("routes", Some(args.routes), routes_bytes),
        ],
    )?;
    let gpu = rec.gpu().clone();
    let vectors = product::vectors(kernel, &gpu, [norm_weight, args.epilogue.bias])?;
    let (vectors, [norm_weight_at, bias_at]) = vectors;
    let residual = or_dummy(&gpu, args.epilogue.residual)?;
    for part in args.parts {
        let (choice, config) = select(rec.caps(), shape, part.format, norm, args.epilogue.kind(), x);
        let [grid_x, grid_y, _] = config.grid(rec.caps(), shape.n);
        let params = Params { grid_x, norm_weight_at, bias_at, eps, ..shape.params(x, part, &args.epilogue) };
        let scales = part.scales(kernel, &gpu, shape.k)?;
        let buffers = [args.x, part.buffer, &scales, &vectors, &residual, args.y, args.routes];
        rec.dispatch(&SPEC, choice, &params, &buffers, [grid_x, grid_y, z as u32])?;
    }
    Ok(())
}

/// What `select` launches for the slots of tokens, without normalisation and epilogue.
pub(in super::super) fn bench_launch(caps: &Caps, shape: ExpertShape, format: WeightFormat) -> Launch {
    let plain = EpilogueKind::default();
    let (choice, config) = select(caps, shape, format, NormKind::None, plain, XRows::Tokens);
    let [grid_x, grid_y, _] = config.grid(caps, shape.n);
    let params = Params { grid_x, ..shape.plain_params(XRows::Tokens) };
    Launch::new(choice, &params, [grid_x, grid_y, shape.num_slots() as u32])
}

/// What a product of one row takes.
fn select(
    caps: &Caps,
    shape: ExpertShape,
    format: WeightFormat,
    norm: NormKind,
    epilogue: EpilogueKind,
    x: XRows,
) -> (Choice, Config) {
    let (_, config) = super::rule(caps, shape.of_slot(), format, norm, epilogue);
    let config = config.or_unblocked(caps, SPEC.name, Data::Weights(format));
    (choice(config, shape, format, norm, epilogue, x), config)
}

fn choice(
    config: Config,
    shape: ExpertShape,
    format: WeightFormat,
    norm: NormKind,
    epilogue: EpilogueKind,
    x: XRows,
) -> Choice {
    let mut choice = super::choice(config, shape.of_slot(), format, norm, epilogue);
    choice.file =
        if config.has_lanes() { "matmul/routed_gemv_lanes.wgsl" } else { "matmul/routed_gemv.wgsl" };
    choice.selection =
        choice.selection.part("bias", "matmul/routes.wgsl").set("WEIGHTED", x == XRows::Weighted);
    choice
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let (num_k, padded) = (p.num_k as usize, 8 * p.num_k8 as usize);
    let w = reference::weights(call, [1, 2], p.num_k);
    let x: Vec<f32> = call.get(0);
    let vectors: Vec<f32> = call.get(3);
    let rms = call.selection.get_u32("RMS_SUMS").is_some_and(|n| n > 0);
    let norm_weight = &vectors[p.norm_weight_at as usize..];
    let product = |row: usize, of: std::ops::Range<usize>| {
        let mut x: Vec<f64> = x[row * num_k..][..num_k].iter().map(|&v| v.into()).collect();
        if rms {
            let mean_sq = x.iter().map(|v| v * v).sum::<f64>() / num_k as f64;
            let scale = 1.0 / (mean_sq + f64::from(p.eps)).sqrt();
            x.iter_mut().zip(norm_weight).for_each(|(v, &w)| *v *= scale * f64::from(w));
        }
        w[of.start * padded..of.end * padded].chunks_exact(padded).map(|w| reference::dot(&x, w)).collect()
    };
    experts::routed_twin(call, p, 6, product);
}

const WEIGHTED: EpilogueKind = EpilogueKind { act: 0, glu: false, bias: true, residual: true };

fn choices() -> Vec<Choice> {
    let shape = |k| ExpertShape { tokens: 2, slots: 2, experts: 4, n: 64, k };
    let plain = EpilogueKind::default();
    let glu = |act| EpilogueKind { act, glu: true, bias: true, residual: false };
    let mut all = Vec::new();
    for config in CONFIGS {
        let formats = WeightFormat::DENSE.into_iter().chain(QUANT_FORMATS.map(WeightFormat::from));
        let formats = formats.filter(|&format| super::is_planned(config, 1, format));
        for (i, format) in formats.enumerate() {
            let k = 64 - i as u32 % 2;
            all.push(choice(config, shape(k), format, NormKind::Rms, plain, XRows::Tokens));
            all.push(choice(config, shape(k), format, NormKind::None, WEIGHTED, XRows::Weighted));
        }
        for act in (1..9).filter(|&act| act != 5 && super::is_planned(config, 1, WeightFormat::F16)) {
            let format = WeightFormat::F16;
            all.push(choice(config, shape(64), format, NormKind::None, glu(act), XRows::Tokens));
        }
    }
    all
}

/// A case with the experts from `first` on.
fn case(
    (name, regime): (&str, Regime),
    (shape, format): (ExpertShape, WeightFormat),
    (norm, epilogue, x): (NormKind, EpilogueKind, XRows),
    first: u32,
    configs: &[Config],
) -> TestCase {
    let ExpertShape { tokens, experts, n, k, .. } = shape;
    let here = experts - first;
    let [weights, scales] = reference::seeded_weights(here * n, k, format, 2);
    let columns = epilogue.columns(n);
    let y_rows = if x == XRows::Weighted { tokens.into() } else { shape.num_slots() };
    let y_len = y_rows as usize * columns as usize;
    let [norm_weight, bias] = [(k, 3), (experts * n, 5)].map(|(n, seed)| seeded(n as usize, seed));
    let (vectors, [norm_weight_at, bias_at]) = product::join([&norm_weight, &bias]);
    let terms = (k * if x == XRows::Weighted { shape.slots } else { 1 }) as usize;
    let scale = 8.0 * if epilogue.glu { 20.0 } else { 1.0 };
    let mut case = TestCase::new(name, regime, Tolerance::f32_sum(terms, scale))
        .input(&seeded(shape.x_rows(x) as usize * k as usize, 1))
        .input(&weights)
        .input(&scales)
        .input(&vectors)
        .input(&seeded(y_len, 6))
        .output(y_len)
        .input(&experts::seeded_routes(shape));
    for &config in configs.iter().filter(|&&config| super::is_planned(config, 1, format)) {
        let [grid_x, grid_y, _] = config.grid_of_case(n);
        let params = Params {
            grid_x,
            norm_weight_at,
            bias_at,
            first_expert: first,
            num_experts: here,
            ..shape.params_of_case(x, epilogue)
        };
        let choice = choice(config, shape, format, norm, epilogue, x);
        case = case.launch(choice, &params, [grid_x, grid_y, y_rows as u32]);
    }
    case
}

fn cases_of(format: WeightFormat) -> Vec<TestCase> {
    let shape = ExpertShape { tokens: 2, slots: 2, experts: 3, n: 34, k: 288 };
    let glu = EpilogueKind { act: 1, glu: true, bias: false, residual: false };
    let every = &CONFIGS[..];
    vec![
        case(
            ("any_format", Regime::PartialTile),
            (shape, format),
            (NormKind::Rms, glu, XRows::Tokens),
            0,
            every,
        ),
        case(
            ("any_format_sum", Regime::PartialTile),
            (shape, format),
            (NormKind::None, EpilogueKind::default(), XRows::Weighted),
            0,
            every,
        ),
    ]
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    use XRows::{Slots, Tokens, Weighted};
    let plain = EpilogueKind::default();
    let glu = |act| EpilogueKind { act, glu: true, bias: true, residual: false };
    let shape = |[tokens, slots, experts]: [u32; 3], n, k| ExpertShape { tokens, slots, experts, n, k };
    let one_of_each = [CONFIGS[0], CONFIGS[3], CONFIGS[5], CONFIGS[7]];
    let (f32, f16, bf16) = (WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16);
    let mut cases = vec![
        case(
            ("one_expert", OneTile),
            (shape([1, 1, 1], 2, 8), f32),
            (NormKind::None, plain, Tokens),
            0,
            &CONFIGS,
        ),
        case(
            ("odd", PartialTile),
            (shape([3, 3, 5], 37, 131), f16),
            (NormKind::Rms, plain, Tokens),
            0,
            &one_of_each,
        ),
        case(
            ("odd_sum", PartialTile),
            (shape([3, 3, 5], 37, 131), f16),
            (NormKind::None, WEIGHTED, Weighted),
            0,
            &one_of_each,
        ),
        case(
            ("gpt_oss", PartialTile),
            (shape([2, 4, 6], 36, 96), Format::MXFP4.into()),
            (NormKind::Rms, glu(6), Tokens),
            0,
            &one_of_each,
        ),
        case(
            ("deepseek_v4", PartialTile),
            (shape([1, 2, 3], 18, 64), bf16),
            (NormKind::None, glu(7), Tokens),
            0,
            &CONFIGS[..2],
        ),
        case(
            ("step", PartialTile),
            (shape([1, 2, 3], 18, 64), bf16),
            (NormKind::None, glu(8), Tokens),
            0,
            &CONFIGS[..2],
        ),
        case(
            ("second_part", PartialTile),
            (shape([4, 3, 7], 34, 96), Format::Q4_0.into()),
            (NormKind::None, glu(1), Tokens),
            3,
            &one_of_each,
        ),
        case(
            ("slots", ManyTiles),
            (shape([5, 2, 4], 70, 64), Format::Q8_0.into()),
            (NormKind::None, plain, Slots),
            0,
            &one_of_each,
        ),
        case(
            ("all_experts", PartialTile),
            (shape([2, 9, 9], 20, 40), f32),
            (NormKind::None, WEIGHTED, Weighted),
            0,
            &one_of_each,
        ),
    ];
    // Every reader of weights in every regime, with pipelines that serve all four. The model is OLMoE's down projection.
    for (name, regime, dims, n, k) in [
        ("one_tile", OneTile, [1, 2, 4], 2, 32),
        ("partial_tile", PartialTile, [2, 3, 8], 34, 96),
        ("many_tiles", ManyTiles, [3, 2, 6], 98, 544),
        ("olmoe", Model, [1, 8, 16], 34, 1024),
    ] {
        for format in [f32, f16, bf16, Format::Q4_0.into()] {
            let of = (format!("{format}_{name}"), shape(dims, n, k));
            let weighted = (NormKind::None, WEIGHTED, Weighted);
            cases.push(case((&of.0, regime), (of.1, format), weighted, 0, &one_of_each));
        }
    }
    cases
}

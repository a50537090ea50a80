//! The products of few quantised tokens with the experts that they go to: only those experts' weights are read.

use super::super::experts::{self, ExpertShape, XRows};
use super::super::few_rows::Config;
use super::super::int::{self, Weights, XRow};
use super::super::or_dummy;
use super::super::product::{Epilogue, EpilogueKind, Params, Part};
use super::{CONFIGS, OperandKind};
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Launch};
use crate::error::KernelError;
use crate::quant::{Format, WeightFormat};
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Codes of x, whose rows are as [`XRows`] says: bytes `[rows, B, 32]`, B = ceil(K / 32); zeros from K on.
    pub x_codes: &'a Buffer,
    /// `[rows, B]` of the scale (f32) and the sums of both halves of the block (i16).
    pub x_scales: &'a Buffer,
    /// W of all experts, each part with whole ones.
    pub parts: &'a [Part<'a>],
    /// Behind the product; its bias is `[E, N]`. A residual has only a sum, which has one part.
    pub epilogue: Epilogue<'a>,
    /// `[T, S]` of expert and bits of its weight. Slots whose expert is none of E are left out: their rows of y keep what they
    /// held.
    pub routes: &'a Buffer,
    /// Result, as [`XRows`] says.
    pub y: &'a Buffer,
}

const SPEC: KernelSpec = KernelSpec {
    name: "routed_gemv_int",
    bindings: &[
        read("x"),
        read("w"),
        read("w_scales"),
        read("vectors"),
        read("residual"),
        read_write("y"),
        read("x_scales"),
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
    benches: experts::bench::routed_int,
    cases_of: Some(cases_of),
    tuning: None,
    cost: Some(experts::routed_cost),
};

/// Appends `y[s] = epilogue(x · W[e]ᵀ)` of each slot s, whose expert is e, or their weighted sum
/// `y[t] = residual + alpha Σ_j weight (x · W[e]ᵀ + bias[e])` of each token; one dispatch for each part of W.
///
/// # Errors
/// Shapes and parts that do not fit, buffers that are too short, more slots than workgroups along an axis, weights that are no
/// integers, a sum with an activation or several parts, and as [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, args: Args<'_>, shape: ExpertShape, x: XRows) -> Result<(), KernelError> {
    let kernel = SPEC.name;
    shape.check(kernel, x, args.parts, &args.epilogue, args.y)?;
    let bad = |field, got: u64, must_be| Err(KernelError::BadParam { kernel, field, got, must_be });
    if shape.tokens == 0 {
        return Ok(());
    }
    let z = if x == XRows::Weighted { shape.tokens.into() } else { shape.num_slots() };
    if z > u64::from(rec.caps().workgroups) {
        return bad("slots", z, "at most the workgroups along an axis");
    }
    let codes = super::Shape { m: shape.x_rows(x) as u32, ..shape.of_slot() };
    int::check_codes(kernel, args.x_codes, args.x_scales, codes)?;
    rows::check_sizes(kernel, [("routes", Some(args.routes), rows::product([8, shape.num_slots()]))])?;
    let gpu = rec.gpu().clone();
    let [bias, residual] = [args.epilogue.bias, args.epilogue.residual].map(|b| or_dummy(&gpu, b));
    let (bias, residual) = (bias?, residual?);
    for part in args.parts {
        let (format, scales) = part.integers(kernel, &gpu, shape.k)?;
        let (choice, config) = select(rec.caps(), shape, format, args.epilogue.kind(), x);
        let [grid_x, grid_y, _] = config.grid(rec.caps(), shape.n);
        let params = Params { grid_x, ..shape.params(x, part, &args.epilogue) };
        let buffers =
            [args.x_codes, part.buffer, &scales, &bias, &residual, args.y, args.x_scales, args.routes];
        rec.dispatch(&SPEC, choice, &params, &buffers, [grid_x, grid_y, z as u32])?;
    }
    Ok(())
}

/// What `select` launches for the slots of tokens, without epilogue.
pub(in super::super) fn bench_launch(caps: &Caps, shape: ExpertShape, format: Format) -> Launch {
    let (choice, config) = select(caps, shape, format, EpilogueKind::default(), XRows::Tokens);
    let [grid_x, grid_y, _] = config.grid(caps, shape.n);
    let params = Params { grid_x, ..shape.plain_params(XRows::Tokens) };
    Launch::new(choice, &params, [grid_x, grid_y, shape.num_slots() as u32])
}

/// What a product of one row takes.
fn select(
    caps: &Caps,
    shape: ExpertShape,
    format: Format,
    epilogue: EpilogueKind,
    x: XRows,
) -> (Choice, Config) {
    let (_, config) = super::rule(caps, shape.of_slot(), format, OperandKind::Codes, epilogue);
    let data = Data::Weights(format.into());
    let config = config.or_unblocked(caps, SPEC.name, data);
    (choice(config, shape, format, epilogue, x), config)
}

fn choice(config: Config, shape: ExpertShape, format: Format, epilogue: EpilogueKind, x: XRows) -> Choice {
    let mut choice = super::choice(config, shape.of_slot(), format, OperandKind::Codes, epilogue);
    choice.file =
        if config.has_lanes() { "matmul/routed_gemv_int_lanes.wgsl" } else { "matmul/routed_gemv_int.wgsl" };
    choice.selection =
        choice.selection.part("bias", "matmul/routes.wgsl").set("WEIGHTED", x == XRows::Weighted);
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
    experts::routed_twin(call, p, 7, product);
}

const WEIGHTED: EpilogueKind = EpilogueKind { act: 0, glu: false, bias: true, residual: true };

fn choices() -> Vec<Choice> {
    let shape = ExpertShape { tokens: 2, slots: 2, experts: 4, n: 64, k: 256 };
    let glu = |act| EpilogueKind { act, glu: true, bias: true, residual: false };
    let mut all = Vec::new();
    for config in CONFIGS {
        for format in int::FORMATS {
            all.push(choice(config, shape, format, EpilogueKind::default(), XRows::Tokens));
            all.push(choice(config, shape, format, WEIGHTED, XRows::Weighted));
        }
        for act in (1..9).filter(|&act| act != 5) {
            all.push(choice(config, shape, Format::Q4_0, glu(act), XRows::Tokens));
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
    configs: &[Config],
) -> TestCase {
    let ExpertShape { tokens, experts, n, k, .. } = shape;
    let here = experts - first;
    let (codes, scales) = int::seeded_weights(here * n, k, format, 2);
    let (x_codes, x_scales) = int::seeded_codes(shape.x_rows(x) as u32, k, n.is_multiple_of(2), 4);
    let y_rows = if x == XRows::Weighted { tokens.into() } else { shape.num_slots() };
    let y_len = y_rows as usize * epilogue.columns(n) as usize;
    let terms = (k * if x == XRows::Weighted { shape.slots } else { 1 }) as usize;
    let tolerance = Tolerance::f32_sum(terms, 16.0 * if epilogue.glu { 20.0 } else { 1.0 });
    let mut case = TestCase::new(name, regime, tolerance)
        .input(&x_codes)
        .input(&codes)
        .input(&scales)
        .input(&seeded((experts * n) as usize, 5))
        .input(&seeded(y_len, 6))
        .output(y_len)
        .input(&x_scales)
        .input(&experts::seeded_routes(shape));
    for &config in configs {
        let [grid_x, grid_y, _] = config.grid_of_case(n);
        let params =
            Params { grid_x, first_expert: first, num_experts: here, ..shape.params_of_case(x, epilogue) };
        let choice = choice(config, shape, format, epilogue, x);
        case = case.launch(choice, &params, [grid_x, grid_y, y_rows as u32]);
    }
    case
}

fn cases_of(format: WeightFormat) -> Vec<TestCase> {
    let WeightFormat::Quant(format) = format else { return Vec::new() };
    let shape = ExpertShape { tokens: 2, slots: 2, experts: 3, n: 34, k: 288 };
    let glu = EpilogueKind { act: 1, glu: true, bias: false, residual: false };
    let regime = Regime::PartialTile;
    vec![
        case(("any_format", regime), (shape, format), (glu, XRows::Tokens), 0, &CONFIGS),
        case(("any_format_sum", regime), (shape, format), (WEIGHTED, XRows::Weighted), 0, &CONFIGS),
    ]
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    use XRows::{Slots, Tokens, Weighted};
    let plain = EpilogueKind::default();
    let glu = |act| EpilogueKind { act, glu: true, bias: true, residual: false };
    let shape = |[tokens, slots, experts]: [u32; 3], n, k| ExpertShape { tokens, slots, experts, n, k };
    let one = (shape([1, 1, 1], 2, 32), Format::Q4_0);
    let odd = (shape([3, 3, 5], 37, 131), Format::Q8_0);
    let part = (shape([4, 3, 7], 34, 96), Format::Q4_0);
    let mut cases = vec![
        case(("one_expert", OneTile), one, (plain, Tokens), 0, &CONFIGS),
        case(("odd", PartialTile), odd, (plain, Slots), 0, &CONFIGS),
        case(("odd_sum", PartialTile), odd, (WEIGHTED, Weighted), 0, &CONFIGS),
        case(("second_part", PartialTile), part, (glu(6), Tokens), 3, &CONFIGS),
    ];
    // Every reader of weights in every regime. The model is OLMoE's down projection.
    for (name, regime, dims, n, k) in [
        ("one_tile", OneTile, [1, 2, 4], 2, 32),
        ("partial_tile", PartialTile, [2, 3, 8], 34, 96),
        ("many_tiles", ManyTiles, [3, 2, 6], 98, 544),
        ("olmoe", Model, [1, 8, 16], 34, 1024),
    ] {
        for format in [Format::Q4_0, Format::MXFP4] {
            let of = format!("{format}_{name}");
            let what = (shape(dims, n, k), format);
            cases.push(case(
                (&of, regime),
                what,
                (WEIGHTED, Weighted),
                0,
                &[CONFIGS[0], CONFIGS[3], CONFIGS[5]],
            ));
        }
    }
    cases
}

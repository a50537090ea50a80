//! Joining the splits of decode.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use crate::attention::EMPTY_LSE;
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Requires};
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `merge.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// T · Hq.
    pub num_rows: u32,
    /// Hq.
    pub num_q_heads: u32,
    /// Elements of a row of the result: Dv, or Dv / 4 where an element is four numbers.
    pub row_elements: u32,
    /// Splits.
    pub splits: u32,
    /// Whether `sinks` holds a logit for each head.
    pub has_sinks: u32,
    /// Workgroups along x.
    pub grid_x: u32,
    /// Padding.
    pub unused: [u32; 2],
}

/// Buffers, all f32.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Normalised results of the splits `[splits, T, Hq, Dv]`.
    pub o_parts: &'a Buffer,
    /// Their log-sum-exp `[splits, T, Hq]`.
    pub lse_parts: &'a Buffer,
    /// Sinks `[Hq]`.
    pub sinks: Option<&'a Buffer>,
    /// Result `[T, Hq, Dv]`.
    pub o: &'a Buffer,
    /// Its log-sum-exp `[T, Hq]`.
    pub lse: &'a Buffer,
}

const SPEC: KernelSpec = KernelSpec {
    name: "attention_merge",
    bindings: &[read("o_parts"), read("lse_parts"), read("sinks"), read_write("o"), read_write("lse")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// Appends `o = Σ w_s o_s / Σ w_s` with `w_s = exp(lse_s)`; a sink adds `exp(sink)` to the denominator.
///
/// # Errors
/// No split, more than 2^32 rows; as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    [num_tokens, num_q_heads, value_dim]: [u32; 3],
    splits: u32,
) -> Result<(), KernelError> {
    for (field, got) in [("splits", splits), ("num_q_heads", num_q_heads), ("value_dim", value_dim)] {
        if got == 0 {
            return Err(KernelError::BadParam { kernel: SPEC.name, field, got: 0, must_be: "positive" });
        }
    }
    let params = Params {
        num_rows: rows::elements(SPEC.name, num_tokens, num_q_heads)?,
        num_q_heads,
        row_elements: value_dim,
        splits,
        has_sinks: args.sinks.is_some().into(),
        grid_x: 1,
        unused: [0; 2],
    };
    let (choice, params, grid) = select(rec.caps(), params);
    let sinks = args.sinks.unwrap_or(args.lse_parts);
    rec.dispatch(&SPEC, choice, &params, &[args.o_parts, args.lse_parts, sinks, args.o, args.lse], grid)
}

fn select(caps: &Caps, params: Params) -> (Choice, Params, [u32; 3]) {
    let vec4 = params.row_elements.is_multiple_of(4) && !caps.is_blocked(SPEC.name, "vec4", Data::Plain);
    let choice = if vec4 { vec4_choice() } else { scalar() };
    let (params, grid) = launch(&choice, params, caps.workgroups);
    (choice, params, grid)
}

fn launch(choice: &Choice, mut params: Params, most: u32) -> (Params, [u32; 3]) {
    if choice.variant == "vec4" {
        params.row_elements /= 4;
    }
    let groups = (u64::from(params.num_rows) * u64::from(params.row_elements))
        .div_ceil(u64::from(choice.invocations))
        .min(u64::from(u32::MAX)) as u32;
    params.grid_x = groups.clamp(1, most);
    (params, [params.grid_x, groups.div_ceil(params.grid_x), 1])
}

fn scalar() -> Choice {
    Choice {
        file: "attention/merge.wgsl",
        variant: "scalar",
        selection: Selection::new().set("Element", "f32"),
        invocations: 64,
        workgroup_bytes: 0,
        requires: Requires::NOTHING,
        data: Data::Plain,
    }
}

fn vec4_choice() -> Choice {
    Choice { variant: "vec4", selection: Selection::new().set("Element", "vec4<f32>"), ..scalar() }
}

fn choices() -> Vec<Choice> {
    vec![scalar(), vec4_choice()]
}

fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let (o_parts, lse_parts, sinks): (Vec<f32>, Vec<f32>, Vec<f32>) = (call.get(0), call.get(1), call.get(2));
    let (mut o, mut lse): (Vec<f32>, Vec<f32>) = (call.get(3), call.get(4));
    let rows = p.num_rows as usize;
    let dim = o.len() / rows;
    for row in 0..rows {
        let sink = (p.has_sinks != 0).then(|| f64::from(sinks[row % p.num_q_heads as usize]));
        let parts: Vec<(usize, f64)> = (0..p.splits as usize)
            .map(|s| (s * rows + row, f64::from(lse_parts[s * rows + row])))
            .filter(|&(_, lse)| lse > 0.5 * f64::from(EMPTY_LSE))
            .collect();
        let max = parts.iter().map(|&(_, lse)| lse).chain(sink).fold(f64::NEG_INFINITY, f64::max);
        let sum = parts.iter().map(|&(_, lse)| lse).chain(sink).map(|lse| (lse - max).exp()).sum::<f64>();
        lse[row] = if sum > 0.0 { (max + sum.ln()) as f32 } else { EMPTY_LSE };
        for c in 0..dim {
            let weighted: f64 =
                parts.iter().map(|&(at, lse)| (lse - max).exp() * f64::from(o_parts[at * dim + c])).sum();
            o[row * dim + c] = if sum > 0.0 { (weighted / sum) as f32 } else { 0.0 };
        }
    }
    call.put(3, &o);
    call.put(4, &lse);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    // Splits beyond the keys are empty: their results are not to be used.
    let case =
        |(name, regime): (&str, Regime), [tokens, heads, dim, splits]: [u32; 4], filled: u32, sinks: bool| {
            let rows = tokens * heads;
            let mut o_parts = seeded((splits * rows * dim) as usize, 1);
            let mut lse_parts = seeded((splits * rows) as usize, 2);
            o_parts[(filled * rows * dim) as usize..].fill(f32::NAN);
            lse_parts[(filled * rows) as usize..].fill(EMPTY_LSE);
            // exp of differences up to 40 that are rounded to ulp(20)
            let tolerance = Tolerance { abs: 40.0 * 64.0 * f64::from(f32::EPSILON), rel: 1e-5 };
            let case = TestCase::new(name, regime, tolerance)
                .input(&o_parts)
                .input(&lse_parts)
                .input(&seeded(heads as usize, 3))
                .output((rows * dim) as usize)
                .output(rows as usize);
            let params = Params {
                num_rows: rows,
                num_q_heads: heads,
                row_elements: dim,
                splits,
                has_sinks: sinks.into(),
                grid_x: 1,
                unused: [0; 2],
            };
            choices().into_iter().filter(|c| c.variant == "scalar" || dim.is_multiple_of(4)).fold(
                case,
                |case, choice| {
                    let (params, grid) = launch(&choice, params, 3);
                    case.launch(choice, &params, grid)
                },
            )
        };
    vec![
        case(("two_splits", OneTile), [1, 2, 4, 2], 2, false),
        case(("empty_splits_sinks", PartialTile), [3, 5, 32, 7], 3, true),
        case(("quads_wrap_to_y", ManyTiles), [4, 7, 36, 3], 3, true),
        case(("all_empty", OneTile), [2, 2, 8, 3], 0, false),
        case(("odd_dim_wraps_to_y", ManyTiles), [4, 7, 17, 5], 5, true),
        case(("llama_8b", Model), [1, 32, 128, 37], 37, false),
    ]
}

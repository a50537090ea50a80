//! Layer normalisation over the last axis, one workgroup per row.

use girih_shaders::Selection;

pub use super::Params;
use crate::buffer::Buffer;
use crate::case::{TestCase, Tolerance, seeded};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Buffers, all f32.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Input `[T, C]`.
    pub x: &'a Buffer,
    /// Weight `[C]`.
    pub w: &'a Buffer,
    /// Bias `[C]`.
    pub b: Option<&'a Buffer>,
    /// Output `[T, C]`.
    pub y: &'a Buffer,
}

const FILE: &str = "norm/layer_norm.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "layer_norm",
    bindings: &[read("x"), read("w"), read("b"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// Appends `y = (x - mean) / sqrt(var + eps) · w + b`.
///
/// # Errors
/// No channels; as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    num_rows: u32,
    num_channels: u32,
    eps: f32,
) -> Result<(), KernelError> {
    let params = Params::new(SPEC.name, rec.caps(), num_rows, num_channels, eps)?;
    let choice = super::select(rec.caps(), SPEC.name, FILE, &params, selection(args.b.is_some()));
    rec.dispatch(&SPEC, choice, &params, &[args.x, args.w, args.b.unwrap_or(args.w), args.y], params.grid())
}

fn selection(bias: bool) -> Selection {
    Selection::new().set("BIAS", bias)
}

fn choices() -> Vec<Choice> {
    super::choices(FILE, &[selection(true), selection(false)])
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let biased = call.selection.get_bool("BIAS");
    let (x, w, b): (Vec<f32>, Vec<f32>, Vec<f32>) = (call.get(0), call.get(1), call.get(2));
    let num_channels = p.num_channels as usize;
    let mut y: Vec<f32> = call.get(3);
    for (x, y) in x.chunks_exact(num_channels).zip(y.chunks_exact_mut(num_channels)).take(p.num_rows as usize)
    {
        let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / num_channels as f64;
        let var = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / num_channels as f64;
        let scale = 1.0 / (var + f64::from(p.eps)).sqrt();
        for (i, (y, &x)) in y.iter_mut().zip(x).enumerate() {
            let b = if biased { f64::from(b[i]) } else { 0.0 };
            *y = ((f64::from(x) - mean) * scale * f64::from(w[i]) + b) as f32;
        }
    }
    call.put(3, &y);
}

fn cases() -> Vec<TestCase> {
    let mut cases = Vec::new();
    for (i, ((name, regime), num_rows, num_channels)) in super::SHAPES.into_iter().enumerate() {
        let len = (num_rows * num_channels) as usize;
        let case = TestCase::new(name, regime, Tolerance::f32_sum(num_channels.max(100) as usize, 1.0))
            .input(&seeded(len, 1))
            .input(&seeded(num_channels as usize, 2))
            .input(&seeded(num_channels as usize, 4))
            .output(len);
        let case = super::launches(case, FILE, num_rows, num_channels, &selection(true));
        cases.push(if i == 3 {
            super::launches(case, FILE, num_rows, num_channels, &selection(false))
        } else {
            case
        });
    }
    cases
}

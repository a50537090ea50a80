//! RMS normalisation over the last axis, one workgroup per row.

use girih_shaders::Selection;

pub use super::Params;
use crate::buffer::Buffer;
use crate::case::{TestCase, Tolerance, seeded};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Buffers: x `[T, C]`, w `[C]`, y `[T, C]`, all f32.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Input.
    pub x: &'a Buffer,
    /// Weight; without one the weights are 1.
    pub w: Option<&'a Buffer>,
    /// Output.
    pub y: &'a Buffer,
}

const FILE: &str = "norm/rms_norm.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "rms_norm",
    bindings: &[read("x"), read("w"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// Appends `y = x / sqrt(mean(x²) + eps) · w`.
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
    let choice = super::select(rec.caps(), SPEC.name, FILE, &params, selection(args.w.is_some()));
    rec.dispatch(&SPEC, choice, &params, &[args.x, args.w.unwrap_or(args.x), args.y], params.grid())
}

fn selection(weight: bool) -> Selection {
    Selection::new().set("WEIGHT", weight)
}

fn choices() -> Vec<Choice> {
    super::choices(FILE, &[selection(true), selection(false)])
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let weighted = call.selection.get_bool("WEIGHT");
    let (x, w): (Vec<f32>, Vec<f32>) = (call.get(0), call.get(1));
    let num_channels = p.num_channels as usize;
    let mut y: Vec<f32> = call.get(2);
    for (x, y) in x.chunks_exact(num_channels).zip(y.chunks_exact_mut(num_channels)).take(p.num_rows as usize)
    {
        let scale = super::rms_scale(x, p.eps);
        for (i, (y, &x)) in y.iter_mut().zip(x).enumerate() {
            let w = if weighted { f64::from(w[i]) } else { 1.0 };
            *y = (f64::from(x) * scale * w) as f32;
        }
    }
    call.put(2, &y);
}

fn cases() -> Vec<TestCase> {
    let mut cases = Vec::new();
    for (i, ((name, regime), num_rows, num_channels)) in super::SHAPES.into_iter().enumerate() {
        let len = (num_rows * num_channels) as usize;
        let case = TestCase::new(name, regime, Tolerance::f32_sum(num_channels as usize, 1.0))
            .input(&seeded(len, 1))
            .input(&seeded(num_channels as usize, 2))
            .output(len);
        let case = super::launches(case, FILE, num_rows, num_channels, &selection(true));
        cases.push(if i == 0 || i == 3 {
            super::launches(case, FILE, num_rows, num_channels, &selection(false))
        } else {
            case
        });
    }
    cases
}

//! RMS normalisation behind a block: the normalised row is added to the residual stream.

use girih_shaders::Selection;

pub use super::Params;
use crate::buffer::Buffer;
use crate::case::{Regime, TestCase, Tolerance, seeded};
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
    /// Residual stream `[T, C]`.
    pub residual: &'a Buffer,
    /// Output `[T, C]`.
    pub y: &'a Buffer,
}

const FILE: &str = "norm/rms_norm_add.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "rms_norm_add",
    bindings: &[read("x"), read("w"), read("residual"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// Appends `y = residual + x / sqrt(mean(x²) + eps) · w`.
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
    let choice = super::select(rec.caps(), SPEC.name, FILE, &params, Selection::new());
    rec.dispatch(&SPEC, choice, &params, &[args.x, args.w, args.residual, args.y], params.grid())
}

fn choices() -> Vec<Choice> {
    super::choices(FILE, &[Selection::new()])
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let (x, w, residual): (Vec<f32>, Vec<f32>, Vec<f32>) = (call.get(0), call.get(1), call.get(2));
    let num_channels = p.num_channels as usize;
    let mut y: Vec<f32> = call.get(3);
    for row in 0..p.num_rows as usize {
        let at = row * num_channels..(row + 1) * num_channels;
        let scale = super::rms_scale(&x[at.clone()], p.eps);
        for (c, i) in at.enumerate() {
            y[i] = (f64::from(residual[i]) + f64::from(x[i]) * scale * f64::from(w[c])) as f32;
        }
    }
    call.put(3, &y);
}

fn cases() -> Vec<TestCase> {
    let case = |((name, regime), num_rows, num_channels): ((&str, Regime), u32, u32)| {
        let len = (num_rows * num_channels) as usize;
        // A sum of terms of magnitude up to 20 may cancel: an absolute part for their last bits.
        let case = TestCase::new(name, regime, Tolerance::f32_sum(num_channels.max(100) as usize, 1.0))
            .input(&seeded(len, 1))
            .input(&seeded(num_channels as usize, 2))
            .input(&seeded(len, 3))
            .output(len);
        super::launches(case, FILE, num_rows, num_channels, &Selection::new())
    };
    super::SHAPES.into_iter().map(case).collect()
}

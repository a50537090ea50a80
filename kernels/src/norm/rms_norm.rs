//! RMS normalisation over the last axis, one workgroup per row.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::spec::{Choice, Kernel, KernelSpec, read, read_write};
use crate::testing::{TestCase, Tolerance, seeded};
use crate::twin::TwinCall;

/// Same layout as `Params` in `rms_norm.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows T.
    pub num_rows: u32,
    /// Channels C.
    pub num_channels: u32,
    /// Added to the mean square.
    pub eps: f32,
    /// Workgroups along x; rows beyond 65535 continue along y.
    pub grid_x: u32,
}

/// Buffers: x `[T, C]`, w `[C]`, y `[T, C]`, all f32.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Input.
    pub x: &'a Buffer,
    /// Weight.
    pub w: &'a Buffer,
    /// Output.
    pub y: &'a Buffer,
}

const SPEC: KernelSpec = KernelSpec {
    name: "rms_norm",
    bindings: &[read("x"), read("w"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel = Kernel { spec: &SPEC, choices, cases, benches: Vec::new };

/// Appends `y = x / sqrt(mean(x²) + eps) · w`.
///
/// # Errors
/// As [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    num_rows: u32,
    num_channels: u32,
    eps: f32,
) -> Result<(), KernelError> {
    if num_channels == 0 {
        return Err(KernelError::BadParam {
            kernel: SPEC.name,
            field: "num_channels",
            got: 0,
            must_be: "positive",
        });
    }
    let (choice, params, grid) = select(rec.caps(), num_rows, num_channels, eps);
    rec.dispatch(&SPEC, choice, &params, &[args.x, args.w, args.y], grid)
}

fn select(caps: &Caps, num_rows: u32, num_channels: u32, eps: f32) -> (Choice, Params, [u32; 3]) {
    let wg = if caps.cpu_variants() { 16 } else { 256.min(caps.invocations) };
    let choice =
        if caps.subgroups() && !caps.is_blocked(SPEC.name, "subgroup") { subgroup(wg) } else { portable(wg) };
    let grid_x = num_rows.min(caps.workgroups);
    let params = Params { num_rows, num_channels, eps, grid_x };
    (choice, params, [grid_x, num_rows.div_ceil(grid_x.max(1)), 1])
}

fn portable(wg: u32) -> Choice {
    Choice {
        file: "norm/rms_norm.wgsl",
        variant: "portable",
        selection: Selection::new().set("WG", wg),
        invocations: wg,
        workgroup_bytes: 4 * wg,
    }
}

fn subgroup(wg: u32) -> Choice {
    Choice {
        variant: "subgroup",
        selection: Selection::new().set("WG", wg).part("reduce", "common/reduce_subgroup.wgsl"),
        workgroup_bytes: wg, // one f32 for each subgroup of at least 4
        ..portable(wg)
    }
}

fn choices() -> Vec<Choice> {
    [16, 128, 256].into_iter().flat_map(|wg| [portable(wg), subgroup(wg)]).collect()
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let (x, w): (Vec<f32>, Vec<f32>) = (call.get(0), call.get(1));
    let num_channels = p.num_channels as usize;
    let mut y: Vec<f32> = call.get(2);
    for (x, y) in x.chunks_exact(num_channels).zip(y.chunks_exact_mut(num_channels)).take(p.num_rows as usize)
    {
        let mean_sq = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / num_channels as f64;
        let scale = 1.0 / (mean_sq + f64::from(p.eps)).sqrt();
        for ((y, &x), &w) in y.iter_mut().zip(x).zip(&w) {
            *y = (f64::from(x) * scale * f64::from(w)) as f32;
        }
    }
    call.put(2, &y);
}

fn cases() -> Vec<TestCase> {
    let case = |name: &str, num_rows: u32, num_channels: u32| {
        let len = (num_rows * num_channels) as usize;
        let mut case = TestCase::new(name, Tolerance::f32_sum(num_channels as usize, 1.0))
            .input(&seeded(len, 1))
            .input(&seeded(num_channels as usize, 2))
            .output(len);
        for choice in choices() {
            let params = Params { num_rows, num_channels, eps: 1e-5, grid_x: num_rows.min(7) };
            case = case.launch(choice, &params, [num_rows.min(7), num_rows.div_ceil(num_rows.min(7)), 1]);
        }
        case
    };
    vec![
        case("one_channel", 2, 1),
        case("one_pass", 3, 256),
        case("partial_pass", 3, 259), // an odd number of channels, one invocation takes a second turn
        case("rows_wrap_to_y", 17, 33),
        case("gpt_oss_20b", 1, 2880),
    ]
}

//! Sum of two tensors, the second one scaled or broadcast over rows.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use crate::buffer::Buffer;
use crate::case::{Regime, TestCase, Tolerance, seeded};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `scale_add.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Elements N.
    pub len: u32,
    /// Length of b where it is broadcast.
    pub num_channels: u32,
    /// Factor of b.
    pub alpha: f32,
    /// Workgroups along x.
    pub grid_x: u32,
}

/// Buffers, all f32.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// First summand `[N]`.
    pub a: &'a Buffer,
    /// Second summand `[N]`, or `[C]` where it is broadcast.
    pub b: &'a Buffer,
    /// Output `[N]`.
    pub y: &'a Buffer,
}

const FILE: &str = "elementwise/scale_add.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "scale_add",
    bindings: &[read("a"), read("b"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// Appends `y = a + alpha · b`. With `row_len`, b is one row of that length, added to each row of a.
///
/// # Errors
/// A row of no length; as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    len: u32,
    alpha: f32,
    row_len: Option<u32>,
) -> Result<(), KernelError> {
    let num_channels = row_len.unwrap_or(len);
    if len > 0 {
        rows::positive(SPEC.name, "row_len", num_channels)?;
    }
    let vec4 = len.is_multiple_of(4) && num_channels.is_multiple_of(4);
    let (vec4, _) = rows::pick(rec.caps(), SPEC.name, vec4, false);
    let choice = choice(rows::flat_wg(rec.caps()), vec4, row_len.is_some());
    let groups = (len / if vec4 { 4 } else { 1 }).div_ceil(choice.invocations);
    let grid = rows::row_grid(rec.caps(), groups);
    let params = Params { len, num_channels, alpha, grid_x: grid[0] };
    rec.dispatch(&SPEC, choice, &params, &[args.a, args.b, args.y], grid)
}

fn choice(wg: u32, vec4: bool, broadcast: bool) -> Choice {
    rows::streaming(FILE, wg, vec4, Selection::new().set("BROADCAST", broadcast))
}

fn choices() -> Vec<Choice> {
    let mut all = Vec::new();
    for wg in [128, 256] {
        for vec4 in [false, true] {
            all.extend([choice(wg, vec4, false), choice(wg, vec4, true)]);
        }
    }
    all
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let broadcast = call.selection.get_bool("BROADCAST");
    let (a, b): (Vec<f32>, Vec<f32>) = (call.get(0), call.get(1));
    let mut y: Vec<f32> = call.get(2);
    for i in 0..p.len as usize {
        let b = b[if broadcast { i % p.num_channels as usize } else { i }];
        y[i] = (f64::from(a[i]) + f64::from(p.alpha) * f64::from(b)) as f32;
    }
    call.put(2, &y);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let case = |(name, regime): (&str, Regime), num_rows: u32, num_channels: u32, broadcast: bool| {
        let len = num_rows * num_channels;
        let b_len = if broadcast { num_channels } else { len };
        // One product and one sum of terms up to 50.
        let mut case = TestCase::new(name, regime, Tolerance { abs: 1e-5, rel: 1e-6 })
            .input(&seeded(len as usize, 1))
            .input(&seeded(b_len as usize, 2))
            .output(len as usize);
        for (wg, vec4) in [(128, false), (128, true), (256, true)] {
            if vec4 && !(len.is_multiple_of(4) && num_channels.is_multiple_of(4)) {
                continue;
            }
            let choice = choice(wg, vec4, broadcast);
            let grid = rows::wrapped_grid((len / if vec4 { 4 } else { 1 }).div_ceil(wg), 3);
            let params = Params { len, num_channels, alpha: -0.7, grid_x: grid[0] };
            case = case.launch(choice, &params, grid);
        }
        case
    };
    vec![
        case(("bias", OneTile), 3, 36, true),
        case(("bias_of_partial_tiles", PartialTile), 5, 132, true),
        case(("bias_odd", PartialTile), 5, 33, true),
        case(("same_shape", ManyTiles), 4, 64, false),
        case(("same_shape_odd", PartialTile), 3, 1001, false),
        case(("wraps_to_y", Model), 7, 2880, true),
    ]
}

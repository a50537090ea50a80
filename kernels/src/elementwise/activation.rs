//! An activation function on each element.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use super::Activation;
use crate::buffer::Buffer;
use crate::case::{Regime, TestCase, seeded};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `elementwise/activation.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Elements N.
    pub len: u32,
    /// Workgroups along x.
    pub grid_x: u32,
}

/// Buffers, all f32.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Input `[N]`.
    pub x: &'a Buffer,
    /// Output `[N]`.
    pub y: &'a Buffer,
}

const FILE: &str = "elementwise/activation.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "activation",
    bindings: &[read("x"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// Appends `y = act(x)`.
///
/// # Errors
/// As [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, args: Args<'_>, len: u32, act: Activation) -> Result<(), KernelError> {
    let (vec4, _) = rows::pick(rec.caps(), SPEC.name, len.is_multiple_of(4), false);
    let choice = choice(rows::flat_wg(rec.caps()), vec4, act);
    let groups = (len / if vec4 { 4 } else { 1 }).div_ceil(choice.invocations);
    let grid = rows::row_grid(rec.caps(), groups);
    rec.dispatch(&SPEC, choice, &Params { len, grid_x: grid[0] }, &[args.x, args.y], grid)
}

fn choice(wg: u32, vec4: bool, act: Activation) -> Choice {
    let selection = Selection::new().set("ACT", act.code());
    let selection = if vec4 { selection.part("each", "elementwise/each4.wgsl") } else { selection };
    rows::streaming(FILE, wg, vec4, selection)
}

fn choices() -> Vec<Choice> {
    let widths = [(128, false), (128, true), (256, false), (256, true)];
    widths.into_iter().flat_map(|(wg, v)| Activation::ALL.map(|act| choice(wg, v, act))).collect()
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let act = Activation::from_code(call.selection.get_u32("ACT").unwrap_or_default());
    let x: Vec<f32> = call.get(0);
    let mut y: Vec<f32> = call.get(1);
    for (y, &x) in y.iter_mut().zip(&x).take(p.len as usize) {
        *y = act.eval(f64::from(x)) as f32;
    }
    call.put(1, &y);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let case = |(name, regime): (&str, Regime), len: u32, acts: &[Activation], vec4: bool| {
        let x: Vec<f32> = seeded(len as usize, 1).iter().map(|v| v * 4.0).collect();
        let mut case = TestCase::new(name, regime, super::TOLERANCE).input(&x).output(len as usize);
        for &act in acts {
            let grid = rows::wrapped_grid((len / if vec4 { 4 } else { 1 }).div_ceil(128), 3);
            case = case.launch(choice(128, vec4, act), &Params { len, grid_x: grid[0] }, grid);
        }
        case
    };
    let silu = [Activation::Silu];
    vec![
        case(("one_tile", OneTile), 32, &silu, false),
        case(("one_tile_of_quads", OneTile), 32, &silu, true),
        case(("partial_tile_of_quads", PartialTile), 1100, &silu, true),
        case(("many_tiles", ManyTiles), 1 << 12, &silu, false),
        case(("llama_1b", Model), 8192, &silu, false),
        case(("llama_1b_of_quads", Model), 8192, &silu, true),
        case(("each_function", ManyTiles), 1 << 9, &Activation::ALL, true),
        case(("odd", PartialTile), 1003, &[Activation::Silu, Activation::GeluErf], false),
        case(("wraps_to_y", ManyTiles), 1 << 12, &[Activation::Silu], true),
    ]
}

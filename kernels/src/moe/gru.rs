//! The state of a recurrent router, handed from layer to layer.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use crate::activation::sigmoid;
use crate::buffer::Buffer;
use crate::case::{Regime, TestCase, Tolerance, seeded};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `gru.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Elements T·P of the state.
    pub len: u32,
    /// Channels P of the state.
    pub num_channels: u32,
    /// Workgroups along x; more continue along y.
    pub grid_x: u32,
}

/// Buffers, all f32.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// `W_i u + b_i` `[T, 3 P]`: reset, update, new.
    pub of_input: &'a Buffer,
    /// `W_h h + b_h` `[T, 3 P]`; `b_h` `[3 P]` where there is no state yet.
    pub of_state: &'a Buffer,
    /// h `[T, P]`; none where it is 0.
    pub state: Option<&'a Buffer>,
    /// The next state `[T, P]`.
    pub y: &'a Buffer,
}

const FILE: &str = "moe/gru.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "moe_gru",
    bindings: &[read("of_input"), read("of_state"), read("state"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// Appends `y = (1 - z) n + z h` with `r = sigmoid(a_r + b_r)`, `z = sigmoid(a_z + b_z)`, `n = tanh(a_n + r b_n)`: a of the
/// input, b of the state, the reset gate on the whole of it.
///
/// # Errors
/// No channels, buffers that are too short, sizes beyond 32 bits, and as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    num_tokens: u32,
    num_channels: u32,
) -> Result<(), KernelError> {
    rows::positive(SPEC.name, "channels", num_channels)?;
    let len = rows::elements(SPEC.name, num_tokens, num_channels)?;
    rows::elements(SPEC.name, len, 3)?;
    let [n, p] = [len, num_channels].map(u64::from);
    rows::check_sizes(
        SPEC.name,
        [
            ("of_input", Some(args.of_input), 12 * n),
            ("of_state", Some(args.of_state), if args.state.is_some() { 12 * n } else { 12 * p }),
            ("state", args.state, 4 * n),
            ("y", Some(args.y), 4 * n),
        ],
    )?;
    let choice = choice(rows::flat_wg(rec.caps()), args.state.is_some());
    let grid = rows::row_grid(rec.caps(), len.div_ceil(choice.invocations));
    let params = Params { len, num_channels, grid_x: grid[0] };
    let state = args.state.unwrap_or(args.of_input);
    rec.dispatch(&SPEC, choice, &params, &[args.of_input, args.of_state, state, args.y], grid)
}

fn choice(wg: u32, state: bool) -> Choice {
    rows::streaming(FILE, wg, false, Selection::new().set("HAS_STATE", state))
}

fn choices() -> Vec<Choice> {
    [128, 256].into_iter().flat_map(|wg| [true, false].map(|state| choice(wg, state))).collect()
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let has_state = call.selection.get_bool("HAS_STATE");
    let n = p.num_channels as usize;
    let (a, b): (Vec<f32>, Vec<f32>) = (call.get(0), call.get(1));
    let state: Option<Vec<f32>> = has_state.then(|| call.get(2));
    let mut y: Vec<f32> = call.get(3);
    for i in 0..p.len as usize {
        let at = i / n * 3 * n + i % n;
        let of_input = |part: usize| f64::from(a[at + part * n]);
        let of_state = |part: usize| f64::from(b[part * n + if has_state { at } else { i % n }]);
        let r = sigmoid(of_input(0) + of_state(0));
        let z = sigmoid(of_input(1) + of_state(1));
        let fresh = (of_input(2) + r * of_state(2)).tanh();
        let h = state.as_ref().map_or(0.0, |s| f64::from(s[i]));
        y[i] = ((1.0 - z) * fresh + z * h) as f32;
    }
    call.put(3, &y);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let case = |(name, regime): (&str, Regime), [t, p]: [u32; 2], state: bool| {
        let len = (t * p) as usize;
        let mut case = TestCase::new(name, regime, Tolerance { abs: 2e-5, rel: 4e-6 })
            .input(&seeded(3 * len, 1))
            .input(&seeded(if state { 3 * len } else { 3 * p as usize }, 2))
            .input(&seeded(len, 3))
            .output(len);
        for wg in [128, 256] {
            let grid = rows::wrapped_grid((t * p).div_ceil(wg), 3);
            let params = Params { len: t * p, num_channels: p, grid_x: grid[0] };
            case = case.launch(choice(wg, state), &params, grid);
        }
        case
    };
    vec![
        case(("one", OneTile), [1, 2], true),
        case(("first_layer", PartialTile), [7, 33], false),
        case(("many", ManyTiles), [9, 132], true),
        case(("rmoe", Model), [3, 256], true),
    ]
}

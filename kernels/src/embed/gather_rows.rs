//! Rows of an f32 tensor by index, e.g. the last token of each sequence.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use crate::buffer::Buffer;
use crate::case::{Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Launch};
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Cost, Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `gather_rows.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows S of the result.
    pub num_rows: u32,
    /// Channels C.
    pub num_channels: u32,
    /// Rows T of the source.
    pub num_tokens: u32,
    /// Workgroups along x.
    pub grid_x: u32,
}

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Source `[T, C]`, f32.
    pub x: &'a Buffer,
    /// Row numbers `[S]`, u32.
    pub rows: &'a Buffer,
    /// Output `[S, C]`, f32.
    pub y: &'a Buffer,
}

const FILE: &str = "embed/gather_rows.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "gather_rows",
    bindings: &[read("x").in_part(), read("rows"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: Some(cost) };

/// The rows that are wanted, once read and once written.
fn cost(launch: &Launch, _: &[u64], _: u32) -> Cost {
    let p: Params = bytemuck::pod_read_unaligned(&launch.params);
    Cost { bytes: u64::from(p.num_rows) * (4 + 8 * u64::from(p.num_channels)), flops: 0 }
}

/// Appends `y[s] = x[rows[s]]`, zeros where `rows[s] >= num_tokens`.
///
/// # Errors
/// No channels; as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    num_rows: u32,
    num_tokens: u32,
    num_channels: u32,
) -> Result<(), KernelError> {
    rows::positive(SPEC.name, "num_channels", num_channels)?;
    let (vec4, _) = rows::pick(rec.caps(), SPEC.name, num_channels.is_multiple_of(4), false);
    let wg = rows::row_wg(rec.caps(), num_channels / if vec4 { 4 } else { 1 });
    let grid = rows::row_grid(rec.caps(), num_rows);
    let params = Params { num_rows, num_channels, num_tokens, grid_x: grid[0] };
    let choice = rows::streaming(FILE, wg, vec4, Selection::new());
    rec.dispatch(&SPEC, choice, &params, &[args.x, args.rows, args.y], grid)
}

fn choices() -> Vec<Choice> {
    let wgs = [16, 64, 128, 256];
    wgs.into_iter()
        .flat_map(|wg| [false, true].map(|v| rows::streaming(FILE, wg, v, Selection::new())))
        .collect()
}

/// The definition.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let (x, rows): (Vec<f32>, Vec<u32>) = (call.get(0), call.get(1));
    let mut y: Vec<f32> = call.get(2);
    let c = p.num_channels as usize;
    for (y, &t) in y.chunks_exact_mut(c).zip(&rows).take(p.num_rows as usize) {
        if t < p.num_tokens {
            y.copy_from_slice(&x[t as usize * c..(t as usize + 1) * c]);
        } else {
            y.fill(0.0);
        }
    }
    call.put(2, &y);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let case = |(name, regime): (&str, Regime), num_tokens: u32, num_channels: u32, picks: &[u32]| {
        let num_rows = picks.len() as u32;
        let mut case = TestCase::new(name, regime, Tolerance { abs: 0.0, rel: 0.0 })
            .input(&seeded((num_tokens * num_channels) as usize, 1))
            .input(picks)
            .output((num_rows * num_channels) as usize);
        for (wg, vec4) in [(16, false), (64, false), (64, true)] {
            if vec4 && !num_channels.is_multiple_of(4) {
                continue;
            }
            let grid = rows::wrapped_grid(num_rows, 3);
            let params = Params { num_rows, num_channels, num_tokens, grid_x: grid[0] };
            case = case.launch(rows::streaming(FILE, wg, vec4, Selection::new()), &params, grid);
        }
        case
    };
    vec![
        case(("one", OneTile), 3, 4, &[2]),
        case(("repeated_and_out_of_range", ManyTiles), 5, 36, &[4, 0, 0, 5, u32::MAX, 1, 3]),
        case(("gpt_oss_20b", Model), 3, 2880, &[2, 0]),
        case(("partial_pass_of_quads", PartialTile), 3, 260, &[1]),
        case(("odd", PartialTile), 4, 131, &[3, 1]),
    ]
}

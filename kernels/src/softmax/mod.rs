//! Softmax over the last axis, one workgroup per row.

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

/// Same layout as `Params` in `softmax.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows R.
    pub num_rows: u32,
    /// Channels C.
    pub num_channels: u32,
    /// Factor of x.
    pub scale: f32,
    /// Bound of the soft cap; 0 without one.
    pub softcap: f32,
    /// Whether `sink` is read.
    pub has_sink: u32,
    /// Workgroups along x.
    pub grid_x: u32,
}

/// Buffers, all f32.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Input `[R, C]`.
    pub x: &'a Buffer,
    /// Additive mask `[R, C]`, finite.
    pub mask: Option<&'a Buffer>,
    /// One more logit per row `[R]`.
    pub sink: Option<&'a Buffer>,
    /// Probabilities `[R, C]`.
    pub p: &'a Buffer,
    /// Log of the denominators `[R]`.
    pub lse: &'a Buffer,
}

const FILE: &str = "softmax/softmax.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "softmax",
    bindings: &[read("x"), read("mask"), read("sink"), read_write("y"), read_write("lse")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// Appends `p = softmax(softcap(x · scale) + mask)`, with the sink in the denominator only.
///
/// # Errors
/// No channels; as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    num_rows: u32,
    num_channels: u32,
    scale: f32,
    softcap: Option<f32>,
) -> Result<(), KernelError> {
    rows::positive(SPEC.name, "num_channels", num_channels)?;
    let (vec4, subgroup) = rows::pick(rec.caps(), SPEC.name, num_channels.is_multiple_of(4), true);
    let wg = rows::row_wg(rec.caps(), num_channels / if vec4 { 4 } else { 1 });
    let choice = choice(wg, (vec4, subgroup), softcap.is_some(), args.mask.is_some());
    let grid = rows::row_grid(rec.caps(), num_rows);
    let params = Params {
        num_rows,
        num_channels,
        scale,
        softcap: softcap.unwrap_or(0.0),
        has_sink: args.sink.is_some().into(),
        grid_x: grid[0],
    };
    let (mask, sink) = (args.mask.unwrap_or(args.x), args.sink.unwrap_or(args.x));
    rec.dispatch(&SPEC, choice, &params, &[args.x, mask, sink, args.p, args.lse], grid)
}

fn choice(wg: u32, (vec4, subgroup): (bool, bool), softcap: bool, mask: bool) -> Choice {
    let selection = Selection::new().set("SOFTCAP", softcap).set("MASK", mask);
    rows::reducing(FILE, wg, vec4, subgroup, selection)
}

fn choices() -> Vec<Choice> {
    let mut all = Vec::new();
    for wg in [16, 64, 128, 256] {
        for (vec4, subgroup) in rows::widths() {
            for (softcap, mask) in [(false, false), (false, true), (true, false), (true, true)] {
                all.push(choice(wg, (vec4, subgroup), softcap, mask));
            }
        }
    }
    all
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let (capped, masked) = (call.selection.get_bool("SOFTCAP"), call.selection.get_bool("MASK"));
    let (x, mask, sink): (Vec<f32>, Vec<f32>, Vec<f32>) = (call.get(0), call.get(1), call.get(2));
    let (mut y, mut lse): (Vec<f32>, Vec<f32>) = (call.get(3), call.get(4));
    let c = p.num_channels as usize;
    for row in 0..p.num_rows as usize {
        let score = |i: usize| {
            let mut s = f64::from(x[i]) * f64::from(p.scale);
            if capped {
                s = f64::from(p.softcap) * (s / f64::from(p.softcap)).tanh();
            }
            // Rounded and bounded as on the device: the most negative numbers absorb what they are added to.
            f64::from((s + if masked { f64::from(mask[i]) } else { 0.0 }).max(-3.0e38) as f32)
        };
        let scores: Vec<f64> = (row * c..(row + 1) * c).map(score).collect();
        let sink = (p.has_sink != 0).then(|| f64::from(sink[row]));
        let m = scores.iter().copied().chain(sink).fold(f64::MIN, f64::max);
        let total: f64 = scores.iter().copied().chain(sink).map(|s| (s - m).exp()).sum();
        for (y, s) in y[row * c..].iter_mut().zip(&scores) {
            *y = ((s - m).exp() / total) as f32;
        }
        lse[row] = (m + total.ln()) as f32;
    }
    call.put(3, &y);
    call.put(4, &lse);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let case = |(name, regime): (&str, Regime),
                num_rows: u32,
                num_channels: u32,
                softcap: Option<f32>,
                masked: bool,
                has_sink: bool| {
        let len = (num_rows * num_channels) as usize;
        let mask: Vec<f32> = (0..len)
            .map(|i| match i % 7 {
                _ if i / num_channels as usize == 1 => f32::MIN,
                0 => f32::MIN,
                3 => -3.0e38,
                r => r as f32 * 0.25,
            })
            .collect();
        // The exponent's absolute error: half an ulp of a score of up to 50, exp itself 18 ulp.
        let mut case = TestCase::new(name, regime, Tolerance { abs: 4e-6, rel: 2e-5 })
            .input(&seeded(len, 1))
            .input(&mask)
            .input(&seeded(num_rows as usize, 2))
            .output(len)
            .output(num_rows as usize);
        for wg in [16, 64, 256] {
            for (vec4, subgroup) in rows::widths() {
                if (vec4 && !num_channels.is_multiple_of(4)) || (wg == 256 && num_channels < 1000) {
                    continue;
                }
                let grid = rows::wrapped_grid(num_rows, 3);
                let params = Params {
                    num_rows,
                    num_channels,
                    scale: 1.25,
                    softcap: softcap.unwrap_or(0.0),
                    has_sink: has_sink.into(),
                    grid_x: grid[0],
                };
                case = case.launch(choice(wg, (vec4, subgroup), softcap.is_some(), masked), &params, grid);
            }
        }
        case
    };
    vec![
        case(("long", Model), 1, 4096, None, false, true), // the self-test: work for all lanes of all subgroups
        case(("plain", OneTile), 2, 4, None, false, false),
        case(("plain_odd", PartialTile), 7, 33, None, false, true),
        case(("mask", ManyTiles), 4, 260, None, true, false),
        case(("mask_odd_softcap", PartialTile), 4, 259, Some(3.0), true, true),
        case(("one_channel", OneTile), 3, 1, None, false, true),
        case(("long_softcap", PartialTile), 1, 516, Some(20.0), false, true),
    ]
}

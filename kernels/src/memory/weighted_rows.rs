//! Weighted sums of rows of a table.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use super::{FORMATS, bench_table, quads, seeded_routes, seeded_table, sizes};
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{Arithmetic, BenchBuffer, BenchCase, Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Launch, Requires};
use crate::error::KernelError;
use crate::quant::{Format, WeightFormat};
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Cost, Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `weighted_rows.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Tokens T.
    pub num_tokens: u32,
    /// Slots of a token S.
    pub num_slots: u32,
    /// Channels C.
    pub num_channels: u32,
    /// Groups of 8 channels.
    pub num_k8: u32,
    /// First row of this part of the table.
    pub row0: u32,
    /// Rows of this part.
    pub rows: u32,
    /// Workgroups along x.
    pub grid_x: u32,
    /// Factor of the sum.
    pub alpha: f32,
}

/// Buffers, f32 where not said.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// `[T, S, 2]`: slot, bits of its weight.
    pub routes: &'a Buffer,
    /// Rows `row0 .. row0 + rows` of the table: elements or codes.
    pub table: &'a Buffer,
    /// Scales of a quantised table.
    pub scales: Option<&'a Buffer>,
    /// Added `[T, C]`.
    pub residual: Option<&'a Buffer>,
    /// Result `[T, C]`.
    pub y: &'a Buffer,
}

/// Shape of a call.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Tokens T.
    pub num_tokens: u32,
    /// Slots of a token S.
    pub num_slots: u32,
    /// Channels C.
    pub num_channels: u32,
    /// First row of this part of the table.
    pub row0: u32,
    /// Rows of this part.
    pub rows: u32,
}

const FILE: &str = "memory/weighted_rows.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "weighted_rows",
    bindings: &[
        read("routes"),
        read("w").in_part(),
        read("w_scales").in_part(),
        read("residual"),
        read_write("y"),
    ],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches, cases_of: Some(cases_of), tuning: None, cost: Some(cost) };

/// Appends `y[t] = residual[t] + alpha Σ_s weight[t, s] · W[slot[t, s]]`, in the order of s. Slots of other parts of the table, or
/// that no row has, add nothing. `adds`: to what y holds, of the parts before.
///
/// # Errors
/// No slots or channels, scales that are missing, buffers that are too short, sizes beyond 32 bits, and as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    shape: Shape,
    format: WeightFormat,
    (alpha, adds): (f32, bool),
) -> Result<(), KernelError> {
    let Shape { num_tokens, num_slots, num_channels, rows, .. } = shape;
    rows::positive(SPEC.name, "slots of a token", num_slots)?;
    rows::positive(SPEC.name, "channels", num_channels)?;
    let [slots, values] =
        [num_slots, num_channels].map(|n| rows::elements(SPEC.name, num_tokens, n).map(u64::from));
    let (slots, values) = (slots?, values?);
    let scale_bytes = rows::product([rows.into(), format.scale_row_bytes(num_channels)]);
    let none = rec.gpu().dummy()?;
    rows::check_sizes(
        SPEC.name,
        [
            ("routes", Some(args.routes), 8 * slots),
            ("w", Some(args.table), rows::product([rows.into(), format.row_bytes(num_channels)])),
            ("w_scales", (scale_bytes > 0).then(|| args.scales.unwrap_or(&none)), scale_bytes),
            ("residual", args.residual, 4 * values),
            ("y", Some(args.y), 4 * values),
        ],
    )?;
    let launch = launch(rec.caps(), shape, format, (alpha, [args.residual.is_some(), adds]));
    let [scales, residual] = [args.scales, args.residual].map(|b| b.unwrap_or(&none));
    rec.launch(&SPEC, &launch, &[args.routes, args.table, scales, residual, args.y])
}

fn launch(caps: &Caps, shape: Shape, format: WeightFormat, (alpha, options): (f32, [bool; 2])) -> Launch {
    let is_quads = shape.num_channels.is_multiple_of(4);
    let (vec4, _) = rows::pick_for(caps, SPEC.name, Data::Weights(format), is_quads, false);
    let wg = rows::row_wg(caps, shape.num_channels.div_ceil(4)).min(64);
    let [x, y, _] = rows::row_grid(caps, shape.num_tokens);
    let z = shape.num_channels.div_ceil(4).div_ceil(wg);
    Launch::new(choice(wg, vec4, format, options), &params(shape, alpha, x), [x, y, z])
}

fn params(s: Shape, alpha: f32, grid_x: u32) -> Params {
    let Shape { num_tokens, num_slots, num_channels, row0, rows } = s;
    let num_k8 = num_channels.div_ceil(8);
    Params { num_tokens, num_slots, num_channels, num_k8, row0, rows, grid_x, alpha }
}

fn choice(wg: u32, vec4: bool, format: WeightFormat, [residual, adds]: [bool; 2]) -> Choice {
    let selection = Selection::new().set("WG", wg).set("HAS_RESIDUAL", residual).set("ADDS", adds);
    Choice {
        file: FILE,
        variant: rows::variant(vec4, false),
        selection: quads(format.apply_table(selection), "y", vec4),
        invocations: wg,
        workgroup_bytes: 0,
        requires: Requires::NOTHING,
        data: Data::Weights(format),
    }
}

fn choices() -> Vec<Choice> {
    let mut all = Vec::new();
    for wg in [16, 64] {
        for vec4 in [false, true] {
            for options in [[false; 2], [true, false], [false, true]] {
                all.extend(FORMATS.map(|format| choice(wg, vec4, format, options)));
            }
        }
    }
    all
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let c = p.num_channels as usize;
    let routes: Vec<[u32; 2]> = call.get(0);
    let table = WeightFormat::of(call.selection).rows(p.num_channels, &call.buffers[1], &call.buffers[2]);
    let residual = call.selection.get_bool("HAS_RESIDUAL").then(|| call.get::<f32>(3));
    let adds = call.selection.get_bool("ADDS");
    let mut y: Vec<f32> = call.get(4);
    for (i, y) in y.iter_mut().enumerate().take(p.num_tokens as usize * c) {
        let mut sum = 0.0;
        for &[slot, weight] in &routes[i / c * p.num_slots as usize..][..p.num_slots as usize] {
            let row = slot.wrapping_sub(p.row0);
            if row < p.rows {
                let value = table[(8 * row * p.num_k8) as usize + i % c];
                sum += f64::from(f32::from_bits(weight)) * value;
            }
        }
        let before =
            residual.as_ref().map_or(0.0, |r| f64::from(r[i])) + if adds { f64::from(*y) } else { 0.0 };
        *y = (before + f64::from(p.alpha) * sum) as f32;
    }
    call.put(4, &y);
}

/// The rows of the slots, once read, and once written what comes of them.
fn cost(launch: &Launch, _: &[u64], _: u32) -> Cost {
    let Data::Weights(format) = launch.choice.data else { return Cost::default() };
    let p: Params = bytemuck::pod_read_unaligned(&launch.params);
    let row = format.row_bytes(p.num_channels) + format.scale_row_bytes(p.num_channels);
    let [tokens, slots, channels] = [p.num_tokens, p.num_slots, p.num_channels].map(u64::from);
    Cost { bytes: tokens * (slots * (8 + row) + 4 * channels), flops: 2 * tokens * slots * channels }
}

/// A case with rows of a format.
fn case(
    (name, regime): (&str, Regime),
    [t, s, c]: [u32; 3],
    [row0, rows]: [u32; 2],
    format: WeightFormat,
    options: [bool; 2],
) -> TestCase {
    let shape = Shape { num_tokens: t, num_slots: s, num_channels: c, row0, rows };
    let [table, scales] = seeded_table(rows, c, format);
    let mut case = TestCase::new(name, regime, Tolerance::f32_sum(s as usize + 2, 4.0))
        .input(&seeded_routes(t * s, row0 + rows + 2))
        .input(&table)
        .input(&scales)
        .input(&seeded((t * c) as usize, 2));
    case = if options[1] {
        case.in_out(&seeded((t * c) as usize, 4), crate::case::Element::F32)
    } else {
        case.output((t * c) as usize)
    };
    for (wg, vec4) in [(16, false), (16, true), (64, true)] {
        if vec4 && !c.is_multiple_of(4) {
            continue;
        }
        let [x, y, _] = rows::wrapped_grid(t, 3);
        let grid = [x, y, c.div_ceil(4).div_ceil(wg)];
        case = case.launch(choice(wg, vec4, format, options), &params(shape, -0.7, x), grid);
    }
    case
}

fn cases_of(format: WeightFormat) -> Vec<TestCase> {
    vec![case(("any_format", Regime::PartialTile), [3, 7, 544], [5, 6], format, [true, false])]
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let q8 = WeightFormat::Quant(Format::Q8_0);
    let mut cases = vec![
        case(("f32_odd", PartialTile), [5, 6, 35], [0, 9], WeightFormat::F32, [false; 2]),
        case(("f16_second_part", ManyTiles), [4, 9, 132], [7, 9], WeightFormat::F16, [false, true]),
        case(("bf16_one_slot", OneTile), [1, 1, 20], [0, 3], WeightFormat::Bf16, [true, false]),
        case(("q8_0", ManyTiles), [3, 5, 160], [0, 6], q8, [true, false]),
    ];
    for format in FORMATS {
        let name = |rest: &str| format!("{format}_{rest}");
        cases.extend([
            case((&name("one_tile"), OneTile), [1, 3, 32], [0, 5], format, [false; 2]),
            case((&name("partial_tile"), PartialTile), [3, 7, 96], [5, 6], format, [true, false]),
            case((&name("many_tiles"), ManyTiles), [5, 2, 288], [0, 6], format, [false; 2]),
            case((&name("ultramem"), Model), [2, 32, 192], [0, 40], format, [false; 2]),
        ]);
    }
    cases
}

fn bench_launches(caps: &Caps, name: &str) -> Vec<Launch> {
    let of = |[num_tokens, num_slots, num_channels]: [u32; 3]| {
        let shape = Shape { num_tokens, num_slots, num_channels, row0: 0, rows: BENCH_ROWS };
        launch(caps, shape, WeightFormat::F16, (1.0, [false; 2]))
    };
    sizes(name).map(of).into_iter().collect()
}

const BENCH_ROWS: u32 = 1 << 14;

/// Tokens x slots x channels, in f16.
fn benches() -> Vec<BenchCase> {
    [[1u32, 128, 1024], [64, 128, 1024]]
        .map(|[t, s, c]| {
            let [routes, table, scales] = bench_table(BENCH_ROWS, c, t * s);
            let none = BenchBuffer::F32(1);
            BenchCase {
                name: format!("{t}x{s}x{c}"),
                buffers: vec![routes, table, scales, none, BenchBuffer::F32((t * c) as usize)],
                launches: bench_launches,
                bytes: u64::from(t) * (u64::from(s) * (8 + 2 * u64::from(c)) + 4 * u64::from(c)),
                written: 4 * u64::from(t * c),
                flops: 2 * u64::from(t * s) * u64::from(c),
                arithmetic: Arithmetic::F32,
            }
        })
        .into()
}

//! Experts of one neuron: the products of their rows with x.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use super::{FORMATS, NONE, NeuronAct, bench_table, quads, seeded_routes, seeded_table, sizes};
use crate::activation;
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{Arithmetic, BenchBuffer, BenchCase, Element, Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Launch};
use crate::error::KernelError;
use crate::quant::WeightFormat;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Cost, Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `neurons.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Slots of all tokens.
    pub num_slots: u32,
    /// Slots of a token S.
    pub token_slots: u32,
    /// Channels C.
    pub num_channels: u32,
    /// Groups of 8 channels.
    pub num_k8: u32,
    /// First row of this part of the table.
    pub row0: u32,
    /// Rows of this part.
    pub rows: u32,
    /// Rows of the whole table.
    pub n: u32,
    /// Workgroups along x.
    pub grid_x: u32,
}

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// `[T, S, 2]`: slot, bits of its weight.
    pub routes: &'a Buffer,
    /// Rows `row0 .. row0 + rows` of the table: elements or codes.
    pub table: &'a Buffer,
    /// Scales of a quantised table.
    pub scales: Option<&'a Buffer>,
    /// `[T, C]`, f32.
    pub x: &'a Buffer,
    /// Result `[T, S, 2]`: slot, bits of its weight.
    pub y: &'a Buffer,
}

/// Shape of a call.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Tokens T.
    pub num_tokens: u32,
    /// Slots of a token S.
    pub token_slots: u32,
    /// Channels C.
    pub num_channels: u32,
    /// First row of this part of the table.
    pub row0: u32,
    /// Rows of this part.
    pub rows: u32,
    /// Rows of the whole table.
    pub n: u32,
}

const FILE: &str = "memory/neurons.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "memory_neurons",
    bindings: &[read("routes"), read("w").in_part(), read("w_scales").in_part(), read("x"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches, cases_of: Some(cases_of), tuning: None, cost: Some(cost) };

/// Appends `weight[t, s] · act(W[slot[t, s]] · x[t])` as the weights of the same slots, for those of this part of the table. The part
/// with row 0 also writes those that no row has: no slot ([`NONE`]), weight 0.
///
/// # Errors
/// No slots or channels, scales that are missing, buffers that are too short, sizes beyond 32 bits, and as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    shape: Shape,
    format: WeightFormat,
    act: NeuronAct,
) -> Result<(), KernelError> {
    let Shape { num_tokens, token_slots, num_channels, rows, .. } = shape;
    rows::positive(SPEC.name, "slots of a token", token_slots)?;
    rows::positive(SPEC.name, "channels", num_channels)?;
    let [slots, values] =
        [token_slots, num_channels].map(|n| rows::elements(SPEC.name, num_tokens, n).map(u64::from));
    let (slots, values) = (slots?, values?);
    let scale_bytes = rows::product([rows.into(), format.scale_row_bytes(num_channels)]);
    let none = rec.gpu().dummy()?;
    rows::check_sizes(
        SPEC.name,
        [
            ("routes", Some(args.routes), 8 * slots),
            ("w", Some(args.table), rows::product([rows.into(), format.row_bytes(num_channels)])),
            ("w_scales", (scale_bytes > 0).then(|| args.scales.unwrap_or(&none)), scale_bytes),
            ("x", Some(args.x), 4 * values),
            ("y", Some(args.y), 8 * slots),
        ],
    )?;
    let launch = launch(rec.caps(), shape, format, act);
    rec.launch(&SPEC, &launch, &[args.routes, args.table, args.scales.unwrap_or(&none), args.x, args.y])
}

fn launch(caps: &Caps, shape: Shape, format: WeightFormat, act: NeuronAct) -> Launch {
    let is_quads = shape.num_channels.is_multiple_of(4);
    let (vec4, subgroup) = rows::pick_for(caps, SPEC.name, Data::Weights(format), is_quads, true);
    let wg = rows::row_wg(caps, shape.num_channels.div_ceil(4));
    let grid = rows::row_grid(caps, shape.num_tokens * shape.token_slots);
    Launch::new(choice(wg, (vec4, subgroup), format, act), &params(shape, grid[0]), grid)
}

fn params(s: Shape, grid_x: u32) -> Params {
    let Shape { num_tokens, token_slots, num_channels, row0, rows, n } = s;
    let (num_slots, num_k8) = (num_tokens * token_slots, num_channels.div_ceil(8));
    Params { num_slots, token_slots, num_channels, num_k8, row0, rows, n, grid_x }
}

fn choice(wg: u32, (vec4, subgroup): (bool, bool), format: WeightFormat, act: NeuronAct) -> Choice {
    let selection = format.apply_table(Selection::new().set("ACT", act as u32));
    let choice = rows::reducing(FILE, wg, false, subgroup, quads(selection, "x", vec4));
    Choice { variant: rows::variant(vec4, subgroup), data: Data::Weights(format), ..choice }
}

const ACTS: [NeuronAct; 4] = [NeuronAct::Linear, NeuronAct::Silu, NeuronAct::Gelu, NeuronAct::Relu];

fn choices() -> Vec<Choice> {
    let mut all = Vec::new();
    for width in rows::widths() {
        for format in FORMATS {
            all.extend([16, 64, 256].map(|wg| choice(wg, width, format, NeuronAct::Silu)));
        }
        all.extend(ACTS.map(|act| choice(64, width, WeightFormat::F16, act)));
    }
    all
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let c = p.num_channels as usize;
    let routes: Vec<[u32; 2]> = call.get(0);
    let table = WeightFormat::of(call.selection).rows(p.num_channels, &call.buffers[1], &call.buffers[2]);
    let act = ACTS[call.selection.get_u32("ACT").unwrap_or(0).min(3) as usize];
    let x: Vec<f32> = call.get(3);
    let mut y: Vec<[u32; 2]> = call.get(4);
    for (i, &[slot, weight]) in routes.iter().enumerate().take(p.num_slots as usize) {
        let row = slot.wrapping_sub(p.row0);
        if row < p.rows {
            let x = &x[i / p.token_slots as usize * c..][..c];
            let w = &table[(8 * row * p.num_k8) as usize..][..c];
            let dot: f64 = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * w).sum();
            let h = match act {
                NeuronAct::Linear => dot,
                NeuronAct::Silu => activation::silu(dot),
                NeuronAct::Gelu => activation::gelu_erf(dot),
                NeuronAct::Relu => activation::relu(dot),
            };
            y[i] = [slot, ((f64::from(f32::from_bits(weight)) * h) as f32).to_bits()];
        } else if slot >= p.n && p.row0 == 0 {
            y[i] = [NONE, 0];
        }
    }
    call.put(4, &y);
}

/// The rows of the slots and x, once read.
fn cost(launch: &Launch, _: &[u64], _: u32) -> Cost {
    let Data::Weights(format) = launch.choice.data else { return Cost::default() };
    let p: Params = bytemuck::pod_read_unaligned(&launch.params);
    let row = format.row_bytes(p.num_channels) + format.scale_row_bytes(p.num_channels);
    let [slots, per, channels] = [p.num_slots, p.token_slots.max(1), p.num_channels].map(u64::from);
    Cost { bytes: slots * (16 + row) + slots / per * 4 * channels, flops: 2 * slots * channels }
}

/// A case with rows of a format.
fn case(
    (name, regime): (&str, Regime),
    [t, s, c]: [u32; 3],
    [row0, rows]: [u32; 2],
    format: WeightFormat,
    act: NeuronAct,
) -> TestCase {
    let n = row0 + rows;
    let shape = Shape { num_tokens: t, token_slots: s, num_channels: c, row0, rows, n };
    let [table, scales] = seeded_table(rows, c, format);
    let mut case = TestCase::new(name, regime, Tolerance::f32_sum(c as usize, 8.0))
        .input(&seeded_routes(t * s, n))
        .input(&table)
        .input(&scales)
        .input(&seeded((t * c) as usize, 2))
        .in_out(&vec![[0x5eadu32, 0x3f80_0000]; (t * s) as usize], Element::Routes);
    for wg in [16, 64] {
        for (vec4, subgroup) in rows::widths().filter(|&(vec4, _)| !vec4 || c.is_multiple_of(4)) {
            if wg == 64 && !subgroup {
                continue;
            }
            let grid = rows::wrapped_grid(t * s, 3);
            let choice = choice(wg, (vec4, subgroup), format, act);
            case = case.launch(choice, &params(shape, grid[0]), grid);
        }
    }
    case
}

fn cases_of(format: WeightFormat) -> Vec<TestCase> {
    vec![case(("any_format", Regime::PartialTile), [3, 7, 544], [5, 6], format, NeuronAct::Linear)]
}

fn cases() -> Vec<TestCase> {
    use NeuronAct::{Gelu, Linear, Relu, Silu};
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let mut cases = vec![
        case(("odd_gelu", PartialTile), [5, 6, 35], [0, 9], WeightFormat::F16, Gelu),
        case(("second_part_relu", ManyTiles), [4, 9, 132], [7, 9], WeightFormat::F16, Relu),
        case(("linear", OneTile), [2, 2, 3], [0, 3], WeightFormat::F16, Linear),
    ];
    for format in FORMATS {
        let name = |rest: &str| format!("{format}_{rest}");
        cases.extend([
            case((&name("one_tile"), OneTile), [1, 3, 32], [0, 5], format, Silu),
            case((&name("partial_tile"), PartialTile), [3, 7, 96], [5, 6], format, Silu),
            case((&name("many_tiles"), ManyTiles), [5, 2, 288], [0, 6], format, Silu),
            case((&name("peer"), Model), [2, 16, 512], [0, 40], format, Silu),
        ]);
    }
    cases
}

fn bench_launches(caps: &Caps, name: &str) -> Vec<Launch> {
    let of = |[num_tokens, token_slots, num_channels]: [u32; 3]| {
        let (row0, rows, n) = (0, BENCH_ROWS, BENCH_ROWS);
        let shape = Shape { num_tokens, token_slots, num_channels, row0, rows, n };
        launch(caps, shape, WeightFormat::F16, NeuronAct::Gelu)
    };
    sizes(name).map(of).into_iter().collect()
}

const BENCH_ROWS: u32 = 1 << 14;

/// Tokens x slots x channels, in f16.
fn benches() -> Vec<BenchCase> {
    [[1u32, 128, 1024], [64, 128, 1024]]
        .map(|[t, s, c]| {
            let [routes, table, scales] = bench_table(BENCH_ROWS, c, t * s);
            let [x, y] = [t * c, 2 * t * s].map(|len| BenchBuffer::F32(len as usize));
            BenchCase {
                name: format!("{t}x{s}x{c}"),
                buffers: vec![routes, table, scales, x, y],
                launches: bench_launches,
                bytes: u64::from(t) * (u64::from(s) * (16 + 2 * u64::from(c)) + 4 * u64::from(c)),
                written: 8 * u64::from(t * s),
                flops: 2 * u64::from(t * s) * u64::from(c),
                arithmetic: Arithmetic::F32,
            }
        })
        .into()
}

//! Embedding: rows of a weight table by token id.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use crate::buffer::Buffer;
use crate::case::{Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Launch, Requires};
use crate::error::KernelError;
use crate::quant::{Format, WeightFormat, pack_row, quantize_row};
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Cost, Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `embedding.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Tokens T.
    pub num_tokens: u32,
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
    /// Factor of the result.
    pub scale: f32,
    /// Workgroups along x.
    pub grid_x: u32,
}

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Token ids `[T]`, u32.
    pub token_ids: &'a Buffer,
    /// Rows `row0 .. row0 + rows` of the table: elements or codes.
    pub table: &'a Buffer,
    /// Scales of a quantised table.
    pub scales: Option<&'a Buffer>,
    /// Output `[T, C]`, f32.
    pub y: &'a Buffer,
}

/// Shape of a call.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Tokens T.
    pub num_tokens: u32,
    /// Channels C.
    pub num_channels: u32,
    /// First row of this part of the table.
    pub row0: u32,
    /// Rows of this part.
    pub rows: u32,
    /// Rows of the whole table.
    pub n: u32,
}

const FILE: &str = "embed/embedding.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "embedding",
    bindings: &[read("token_ids"), read("w").in_part(), read("w_scales").in_part(), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel = Kernel {
    spec: &SPEC,
    choices,
    cases,
    benches: Vec::new,
    cases_of: Some(cases_of),
    tuning: None,
    cost: Some(cost),
};

/// Appends `y[t] = scale · table[token_ids[t]]` for the tokens whose rows lie in this part of the table. The part
/// with row 0 also writes zeros for ids that no row has.
///
/// # Errors
/// No channels, scales that are missing; as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    shape: Shape,
    format: WeightFormat,
    scale: f32,
) -> Result<(), KernelError> {
    rows::positive(SPEC.name, "num_channels", shape.num_channels)?;
    rows::elements(SPEC.name, shape.num_tokens, shape.num_channels)?;
    let want = rows::product([shape.rows.into(), format.scale_row_bytes(shape.num_channels)]);
    let scales = match args.scales {
        Some(scales) if scales.size() >= want => scales.clone(),
        None if want == 0 => rec.gpu().dummy()?,
        scales => {
            let got = scales.map_or(0, Buffer::size);
            return Err(KernelError::BadBuffer { kernel: SPEC.name, binding: "w_scales", got, want });
        }
    };
    let (vec4, _) = rows::pick_for(
        rec.caps(),
        SPEC.name,
        Data::Weights(format),
        shape.num_channels.is_multiple_of(4),
        false,
    );
    let wg = rows::row_wg(rec.caps(), shape.num_channels.div_ceil(4));
    let grid = rows::row_grid(rec.caps(), shape.num_tokens);
    let params = params(shape, scale, grid[0]);
    let buffers = [args.token_ids, args.table, &scales, args.y];
    rec.dispatch(&SPEC, choice(wg, vec4, format), &params, &buffers, grid)
}

fn params(s: Shape, scale: f32, grid_x: u32) -> Params {
    let Shape { num_tokens, num_channels, row0, rows, n } = s;
    let num_k8 = num_channels.div_ceil(8);
    Params { num_tokens, num_channels, num_k8, row0, rows, n, scale, grid_x }
}

fn choice(wg: u32, vec4: bool, format: WeightFormat) -> Choice {
    let selection = format.apply_table(Selection::new().set("WG", wg));
    let selection = if vec4 { selection.part("put", "embed/put4.wgsl") } else { selection };
    Choice {
        file: FILE,
        variant: rows::variant(vec4, false),
        selection,
        invocations: wg,
        workgroup_bytes: 0,
        requires: Requires::NOTHING,
        data: Data::Weights(format),
    }
}

const FORMATS: [WeightFormat; 8] = [
    WeightFormat::F32,
    WeightFormat::F16,
    WeightFormat::Bf16,
    WeightFormat::Quant(Format::Q8_0),
    WeightFormat::Quant(Format::Q4_K),
    WeightFormat::Quant(Format::Q6_K),
    WeightFormat::Quant(Format::MXFP4),
    WeightFormat::Quant(Format::fp8(Format::ROW)),
];

fn choices() -> Vec<Choice> {
    let mut all = Vec::new();
    for wg in [16, 64, 128, 256] {
        for vec4 in [false, true] {
            all.extend(FORMATS.map(|format| choice(wg, vec4, format)));
        }
    }
    all
}

/// The definition.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let ids: Vec<u32> = call.get(0);
    let format = WeightFormat::of(call.selection);
    let table = format.rows(p.num_channels, &call.buffers[1], &call.buffers[2]);
    let mut y: Vec<f32> = call.get(3);
    let c = p.num_channels as usize;
    for (y, &id) in y.chunks_exact_mut(c).zip(&ids).take(p.num_tokens as usize) {
        if id >= p.n {
            if p.row0 == 0 {
                y.fill(0.0);
            }
        } else if (p.row0..p.row0 + p.rows).contains(&id) {
            let row = &table[(8 * (id - p.row0) * p.num_k8) as usize..][..c];
            for (y, &v) in y.iter_mut().zip(row) {
                *y = (v * f64::from(p.scale)) as f32;
            }
        }
    }
    call.put(3, &y);
}

/// A case with weights of a format.
fn case(
    (name, regime): (&str, Regime),
    num_channels: u32,
    row0: u32,
    format: WeightFormat,
    ids: &[u32],
) -> TestCase {
    let shape = Shape { num_tokens: ids.len() as u32, num_channels, row0, rows: 6, n: 11 };
    let values = seeded((6 * num_channels.next_multiple_of(8)) as usize, 3);
    let (mut codes, mut scales) = (Vec::<u32>::new(), vec![]);
    let bytes: Vec<u8> = match format {
        WeightFormat::F32 => bytemuck::cast_slice(&values).to_vec(),
        WeightFormat::F16 => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
        WeightFormat::Bf16 => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
        WeightFormat::Quant(format) => {
            for row in values.chunks_exact(num_channels as usize).take(6) {
                pack_row(format, &quantize_row(format, row), &mut codes, &mut scales);
            }
            bytemuck::cast_slice(&codes).to_vec()
        }
    };
    scales.resize(scales.len().max(1), 0);
    let mut case = TestCase::new(name, regime, Tolerance { abs: 0.0, rel: 1e-6 })
        .input(ids)
        .input(&bytes)
        .input(&scales)
        .output(ids.len() * num_channels as usize);
    for (wg, vec4) in [(16, false), (64, false), (64, true)] {
        if vec4 && !num_channels.is_multiple_of(4) {
            continue;
        }
        let grid = rows::wrapped_grid(shape.num_tokens, 3);
        case = case.launch(choice(wg, vec4, format), &params(shape, 1.5, grid[0]), grid);
    }
    case
}

/// The rows of the tokens, once read and once written.
fn cost(launch: &Launch, _: &[u64], _: u32) -> Cost {
    let Data::Weights(format) = launch.choice.data else { return Cost::default() };
    let p: Params = bytemuck::pod_read_unaligned(&launch.params);
    let row = format.row_bytes(p.num_channels) + format.scale_row_bytes(p.num_channels);
    let [tokens, channels] = [p.num_tokens, p.num_channels].map(u64::from);
    Cost { bytes: tokens * (4 + row + 4 * channels), flops: 0 }
}

fn cases_of(format: WeightFormat) -> Vec<TestCase> {
    vec![case(("any_format", Regime::PartialTile), 544, 5, format, &[5, 0, 3, 11, 6, 10, u32::MAX])]
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let ids = [5, 0, 3, 11, 6, 10, u32::MAX];
    let mut cases = vec![
        case(("f32", ManyTiles), 12, 0, WeightFormat::F32, &ids),
        case(("f16", ManyTiles), 12, 0, WeightFormat::F16, &ids),
        case(("bf16", ManyTiles), 12, 0, WeightFormat::Bf16, &ids),
        case(("second_part", PartialTile), 300, 5, WeightFormat::F32, &ids),
        case(("f16_odd", PartialTile), 131, 5, WeightFormat::F16, &ids),
        case(("bf16_one_channel", OneTile), 1, 0, WeightFormat::Bf16, &ids),
        case(("q8_0", ManyTiles), 64, 0, Format::Q8_0.into(), &ids),
        case(("q4_k_odd", PartialTile), 270, 5, Format::Q4_K.into(), &ids),
        case(("q6_k", PartialTile), 40, 5, Format::Q6_K.into(), &ids),
    ];
    // Every reader of weights in every regime.
    for format in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16, Format::Q8_0.into()] {
        let name = |rest: &str| format!("{format}_{rest}");
        cases.extend([
            case((&name("one_tile"), OneTile), 32, 0, format, &ids[..1]),
            case((&name("partial_tile"), PartialTile), 96, 5, format, &ids),
            case((&name("gpt_oss_20b"), Model), 2880, 0, format, &ids[..3]),
        ]);
    }
    cases
}

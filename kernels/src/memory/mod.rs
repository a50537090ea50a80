//! Memory layers: slots found by product keys, and sums of what lies in them.
//!
//! A slot is a row of a table of values, found by two halves of a query: slot `i C + j` by row i and column j. *Routes* hold for
//! each of the K slots of a query the slot, or [`NONE`], and the bits of its f32 weight. Experts of one neuron are slots too: a row
//! of the table in, a row of the table out.

pub mod neurons;
pub mod product_keys;
pub mod weighted_rows;

use girih_shaders::Selection;

use crate::case::{BenchBuffer, hash, seeded};
use crate::quant::{Format, WeightFormat, pack_row, quantize_row};

/// Slot of a route that has none: too few scores were numbers.
pub const NONE: u32 = u32::MAX;

/// What a found slot weighs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SlotWeight {
    /// Softmax of the scores of the chosen slots (PEER, 2407.04153).
    #[default]
    Softmax,
    /// `softmax(rows)_i · softmax(columns)_j`, over all rows and all columns: the exponential of the sum of the logs
    /// (`OmniMoE`, 2602.05711).
    Probability,
    /// `max(score, 0)`
    Relu,
    /// The score (`UltraMemV2`, 2508.18756).
    Score,
}

/// What happens to the product of x with an expert's row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NeuronAct {
    /// Nothing (`UltraMemV2`).
    #[default]
    Linear,
    /// SiLU (`OmniMoE`).
    Silu,
    /// GELU with erf (PEER).
    Gelu,
    /// ReLU.
    Relu,
}

/// Formats whose readers differ in text.
const FORMATS: [WeightFormat; 4] =
    [WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16, WeightFormat::Quant(Format::Q8_0)];

/// A part that reads or writes four channels of a row.
fn quads(selection: Selection, name: &'static str, vec4: bool) -> Selection {
    match (name, vec4) {
        ("x", true) => selection.part("x", "memory/x4.wgsl"),
        ("y", true) => selection.part("y", "memory/y4.wgsl"),
        _ => selection,
    }
}

/// Codes and scales of a seeded table.
fn seeded_table(rows: u32, channels: u32, format: WeightFormat) -> [Vec<u8>; 2] {
    let scale = 1.0 / (channels as f32).sqrt();
    let mut values = Vec::new();
    for row in 0..rows {
        let of_row = seeded(channels as usize, row + 3);
        values.extend(of_row.into_iter().map(|v| v.clamp(-2.0, 2.0) * scale));
        if !matches!(format, WeightFormat::Quant(_)) {
            values.resize(values.len().next_multiple_of(8), 0.0);
        }
    }
    let (mut codes, mut scales) = (Vec::<u32>::new(), Vec::<u32>::new());
    let bytes = match format {
        WeightFormat::F32 => bytemuck::cast_slice(&values).to_vec(),
        WeightFormat::F16 => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
        WeightFormat::Bf16 => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
        WeightFormat::Quant(format) => {
            for row in values.chunks_exact(channels as usize) {
                pack_row(format, &quantize_row(format, row), &mut codes, &mut scales);
            }
            bytemuck::cast_slice(&codes).to_vec()
        }
    };
    scales.resize(scales.len().max(1), 0);
    [bytes, bytemuck::cast_slice(&scales).to_vec()]
}

/// Routes of a case: slots of a table, among them twice the same, [`NONE`], and one that no row has.
fn seeded_routes(len: u32, slots: u32) -> Vec<[u32; 2]> {
    let slot = |i: u32| match i % 9 {
        3 => NONE,
        5 => slots,
        7 => 0,
        _ => hash(i) % slots,
    };
    (0..len).map(|i| [slot(i), ((hash(i + 5) % 16) as f32 / 16.0 - 0.25).to_bits()]).collect()
}

/// A bench's table of f16, and routes to it at random.
fn bench_table(rows: u32, channels: u32, slots: u32) -> [BenchBuffer; 3] {
    let routes = (0..slots).flat_map(|i| [hash(i) % rows, 0.0625f32.to_bits()]).collect();
    [BenchBuffer::U32(routes), BenchBuffer::F16((rows * channels) as usize), BenchBuffer::F32(1)]
}

/// Numbers of a bench's name, `1x128x1024`.
fn sizes<const N: usize>(name: &str) -> Option<[u32; N]> {
    let numbers: Option<Vec<u32>> = name.split('x').map(|n| n.parse().ok()).collect();
    numbers?.try_into().ok()
}

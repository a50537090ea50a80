//! Checkpoints of real shapes with random weights, for benches without a download.

mod experts;
mod presets;

use std::fmt::Write as _;
use std::ops::Range;

use crate::checkpoint::source::{BoxFuture, ByteSource};
use crate::error::LoadError;

pub use experts::ExpertChoice;
pub use presets::{Family, PRESETS, Preset};
use presets::{Fill, Tensor};

/// A checkpoint folder that exists only as a rule: its bytes are made when they are read.
#[derive(Debug)]
pub struct SyntheticSource {
    preset: Preset,
    config: Vec<u8>,
    header: Vec<u8>,
    data_bytes: u64,
    /// Seeded f16 values; tensors read overlapping windows of it.
    block: Vec<u8>,
    /// Tensors that are not what the block says throughout, in the order of their places among the data.
    ruled: Vec<Ruled>,
}

/// A tensor with a rule.
#[derive(Debug)]
struct Ruled {
    range: Range<u64>,
    shape: Vec<u32>,
    fill: Fill,
}

const FILE: &str = "model.safetensors";
const ONE: [u8; 2] = half::f16::ONE.to_le_bytes();

impl Preset {
    /// The preset of a name.
    ///
    /// # Errors
    /// A name that no preset has.
    pub fn named(name: &str) -> Result<Self, LoadError> {
        PRESETS.iter().find(|p| p.name == name).copied().ok_or_else(|| LoadError::UnknownPreset {
            got: name.into(),
            known: PRESETS.iter().map(|p| p.name).collect::<Vec<_>>().join(", "),
        })
    }
}

impl SyntheticSource {
    /// The checkpoint of a preset; tokens of a mixture are spread evenly.
    ///
    /// # Errors
    /// A name that no preset has.
    pub fn new(name: &str) -> Result<Self, LoadError> {
        Ok(Self::of(Preset::named(name)?, ExpertChoice::default()))
    }

    /// The checkpoint of a shape, whose tokens go to the experts that `choice` says.
    pub fn of(preset: Preset, choice: ExpertChoice) -> Self {
        let config = preset.config().to_string().into_bytes();
        let mut header = String::from("{");
        let mut end = 0;
        let mut ruled = Vec::new();
        for Tensor { name, shape, fill } in preset.tensors(choice) {
            let bytes = 2 * shape.iter().map(|&d| u64::from(d)).product::<u64>();
            let range = end..end + bytes;
            let comma = if end == 0 { "" } else { "," };
            let _ = write!(
                header,
                r#"{comma}"{name}":{{"dtype":"F16","shape":{shape:?},"data_offsets":[{end},{}]}}"#,
                range.end
            );
            end = range.end;
            if fill != Fill::Random {
                ruled.push(Ruled { range, shape, fill });
            }
        }
        header.push('}');
        while header.len() % 8 != 0 {
            header.push(' ');
        }
        let header = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        // Values of the size that trained weights have: activations stay in range through all layers.
        let mut state = 1u64;
        let block = (0..1 << 21)
            .flat_map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let unit = (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
                half::f16::from_f32(unit * 0.05).to_le_bytes()
            })
            .collect();
        Self { preset, config, header, data_bytes: end, block, ruled }
    }

    fn bytes(&self, file: &str, range: Range<u64>) -> Vec<u8> {
        if file == "config.json" {
            return self.config[range.start as usize..range.end as usize].to_vec();
        }
        let header = self.header.len() as u64;
        let mut out = Vec::with_capacity((range.end - range.start) as usize);
        if range.start < header {
            out.extend_from_slice(&self.header[range.start as usize..range.end.min(header) as usize]);
        }
        let first = out.len();
        let mut at = range.start.max(header);
        let data = at - header..range.end.max(at) - header;
        while at < range.end {
            let offset = ((at - header) % self.block.len() as u64) as usize;
            let take = (self.block.len() - offset).min((range.end - at) as usize);
            out.extend_from_slice(&self.block[offset..offset + take]);
            at += take as u64;
        }
        let from = self.ruled.partition_point(|t| t.range.end <= data.start);
        for tensor in self.ruled[from..].iter().take_while(|t| t.range.start < data.end) {
            let mut part = Part { out: &mut out[first..], data: data.clone(), tensor };
            part.fill(self.preset.experts);
        }
        out
    }
}

/// Bytes that are read, of which some are a tensor's.
struct Part<'a> {
    out: &'a mut [u8],
    /// Place of `out` among the data.
    data: Range<u64>,
    tensor: &'a Ruled,
}

impl Part<'_> {
    /// Writes elements with these indices.
    fn put(&mut self, elements: Range<u64>, value: [u8; 2]) {
        let start = self.tensor.range.start;
        let bytes = (start + 2 * elements.start).max(self.data.start)
            ..(start + 2 * elements.end).min(self.tensor.range.end).min(self.data.end);
        for at in bytes {
            self.out[(at - self.data.start) as usize] = value[((at - start) % 2) as usize];
        }
    }

    /// Rows that are read at least in part, with so many columns.
    fn rows(&self, columns: u64) -> Range<u64> {
        let row_bytes = (2 * columns).max(1);
        let start = self.tensor.range.start;
        let end = self.data.end.min(self.tensor.range.end) - start;
        (self.data.start.max(start) - start) / row_bytes..end.div_ceil(row_bytes)
    }

    fn fill(&mut self, [experts, per_token]: [u32; 2]) {
        let columns = self.tensor.shape.last().copied().map_or(1, u64::from);
        let all = 0..(self.tensor.range.end - self.tensor.range.start) / 2;
        match self.tensor.fill {
            Fill::Random => {}
            Fill::Ones => self.put(all, ONE),
            Fill::Zeros => self.put(all, [0; 2]),
            Fill::ZeroRows(rows) => self.put(0..columns * u64::from(rows), [0; 2]),
            Fill::ZeroColumns(count) => {
                for row in self.rows(columns) {
                    self.put(row * columns..row * columns + u64::from(count), [0; 2]);
                }
            }
            Fill::Identity => {
                self.put(all, [0; 2]);
                for row in self.rows(columns) {
                    self.put(row * columns + row..row * columns + row + 1, ONE);
                }
            }
            Fill::Embedding(choice) => {
                for row in self.rows(columns) {
                    self.put(row * columns..row * columns + u64::from(experts), [0; 2]);
                    for expert in choice.of_token(row as u32, [experts, per_token]) {
                        let at = row * columns + u64::from(expert);
                        self.put(at..at + 1, ONE);
                    }
                }
            }
        }
    }
}

impl ByteSource for SyntheticSource {
    fn read<'a>(&'a self, file: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Vec<u8>, LoadError>> {
        Box::pin(async move { Ok(self.bytes(file, range)) })
    }

    fn size<'a>(&'a self, file: &'a str) -> BoxFuture<'a, Result<Option<u64>, LoadError>> {
        let size = match file {
            "config.json" => Some(self.config.len() as u64),
            FILE => Some(self.header.len() as u64 + self.data_bytes),
            _ => None,
        };
        Box::pin(async move { Ok(size) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any cut of the file reads the same bytes as the whole.
    #[test]
    fn parts_are_those_of_the_whole() {
        for family in [Family::Qwen3Moe, Family::GptOss, Family::Olmoe] {
            let preset = Preset {
                family,
                hidden_size: 16,
                intermediate_size: 6,
                num_layers: 2,
                num_q_heads: 2,
                num_kv_heads: 1,
                head_dim: 4,
                vocab_size: 9,
                experts: [5, 2],
                tied: false,
                ..PRESETS[0]
            };
            let source = SyntheticSource::of(preset, ExpertChoice::Balanced);
            let size = source.header.len() as u64 + source.data_bytes;
            let whole = source.bytes(FILE, 0..size);
            assert_eq!(whole.len() as u64, size);
            for step in [1u64, 3, 7, 64, 1000] {
                let cut: Vec<u8> = (0..size)
                    .step_by(step as usize)
                    .flat_map(|at| source.bytes(FILE, at..size.min(at + step)))
                    .collect();
                assert!(cut == whole, "{family:?}, {step} bytes at a time");
            }
            // The embedding comes first: token 4 has ones in channels 3 and 4, and zeros in 0 to 2.
            let row = &whole[source.header.len() + 2 * 4 * 16..][..32];
            let [zero, one] = [[0; 2], ONE];
            assert_eq!(row[..10].as_chunks().0, [zero, zero, zero, one, one]);
            assert!(row[10..].as_chunks::<2>().0.iter().all(|&v| v != zero && v != one));
        }
    }
}

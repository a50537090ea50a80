//! [`WeightFormat`]: how a weight matrix lies in memory.

use std::fmt;

use girih_shaders::Selection;

use super::format::Format;

/// How the rows of a matrix lie in memory. Rows of a dense matrix are padded with zeros to groups of 8 elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// 32-bit float.
    F32,
    /// IEEE half, two to a word.
    F16,
    /// bfloat16, two to a word.
    Bf16,
    /// Codes and scales in the layout of [`pack_row`](super::pack_row).
    Quant(Format),
}

impl WeightFormat {
    /// The dense formats.
    pub const DENSE: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// Bytes of an element of a dense matrix; `None` for codes.
    pub fn element_bytes(self) -> Option<u32> {
        match self {
            Self::F32 => Some(4),
            Self::F16 | Self::Bf16 => Some(2),
            Self::Quant(_) => None,
        }
    }

    /// Bytes of a row of `k` channels in the buffer of elements or codes, padding included.
    pub fn row_bytes(self, k: u32) -> u64 {
        match self {
            Self::F32 => 32 * u64::from(k.div_ceil(8)),
            Self::F16 | Self::Bf16 => 16 * u64::from(k.div_ceil(8)),
            Self::Quant(format) => 4 * u64::from(format.code_words(k)),
        }
    }

    /// Bytes of a row of `k` channels in the buffer of scales; 0 for dense matrices.
    pub fn scale_row_bytes(self, k: u32) -> u64 {
        match self {
            Self::Quant(format) => 4 * u64::from(format.scale_words(k)),
            _ => 0,
        }
    }

    /// File of the shader part that reads weights for products.
    fn part(self) -> &'static str {
        match self {
            Self::F32 => "matmul/weights_f32.wgsl",
            Self::F16 => "matmul/weights_f16.wgsl",
            Self::Bf16 => "matmul/weights_bf16.wgsl",
            Self::Quant(_) => "quant/weights.wgsl",
        }
    }

    /// File of the shader part that reads a table by rows.
    fn table_part(self) -> &'static str {
        match self {
            Self::F32 => "embed/table_f32.wgsl",
            Self::F16 => "embed/table_f16.wgsl",
            Self::Bf16 => "embed/table_bf16.wgsl",
            Self::Quant(_) => "quant/table.wgsl",
        }
    }

    fn constants(self, selection: Selection) -> Selection {
        if let Self::Quant(format) = self { format.apply(selection) } else { selection }
    }

    /// Puts the part that reads weights, and its constants, into the slot `weights`.
    pub(crate) fn apply(self, selection: Selection) -> Selection {
        self.constants(selection.part("weights", self.part()))
    }

    /// Puts the part that reads a table by rows, and its constants, in the place of the import `table_f32`.
    pub(crate) fn apply_table(self, selection: Selection) -> Selection {
        self.constants(selection.part("table_f32", self.table_part()))
    }

    /// What [`WeightFormat::apply`] or [`WeightFormat::apply_table`] put into a selection.
    pub(crate) fn of(selection: &Selection) -> Self {
        if let Some(format) = Format::of(selection) {
            return Self::Quant(format);
        }
        let (weights, table) = (selection.get_part("weights"), selection.get_part("table_f32"));
        let chosen = |f: &Self| weights == Some(f.part()) || table == Some(f.table_part());
        Self::DENSE.into_iter().find(chosen).unwrap_or(Self::F32)
    }

    /// Rows of `8 · ceil(k / 8)` values, zero from `k` on, by the definition of the format: what twins read.
    pub(crate) fn rows(self, k: u32, weights: &[u8], scales: &[u8]) -> Vec<f64> {
        match self {
            Self::F32 => weights.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b).into()).collect(),
            Self::F16 => {
                weights.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f64()).collect()
            }
            Self::Bf16 => {
                weights.as_chunks().0.iter().map(|&b| half::bf16::from_le_bytes(b).to_f64()).collect()
            }
            Self::Quant(format) => {
                let words = |bytes: &[u8]| -> Vec<u32> {
                    bytes.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).collect()
                };
                let (codes, scales) = (words(weights), words(scales));
                let scales = scales.chunks_exact(format.scale_words(k) as usize);
                let mut values = Vec::new();
                for (codes, scales) in codes.chunks_exact(format.code_words(k) as usize).zip(scales) {
                    values.extend(super::unpack_row(format, k, codes, scales).values(format));
                    values.resize(values.len().next_multiple_of(8), 0.0);
                }
                values
            }
        }
    }
}

/// `f32`, `f16`, `bf16` or the format's own name.
impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32 => f.write_str("f32"),
            Self::F16 => f.write_str("f16"),
            Self::Bf16 => f.write_str("bf16"),
            Self::Quant(format) => format.fmt(f),
        }
    }
}

impl From<Format> for WeightFormat {
    fn from(format: Format) -> Self {
        Self::Quant(format)
    }
}

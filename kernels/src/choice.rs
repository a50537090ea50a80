//! What is launched: a pipeline, its parameters, its grid.

use std::fmt::{self, Write as _};

use bytemuck::Pod;
use girih_shaders::Selection;

use crate::quant::WeightFormat;

/// What a device must offer to a pipeline beside limits that are large enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Requires {
    /// Subgroup operations, in subgroups of at least this size; `None` where the shader has none.
    pub lanes: Option<u32>,
    /// f16 arithmetic.
    pub f16: bool,
    /// 64-bit integers.
    pub int64: bool,
}

impl Requires {
    /// What every device has.
    pub const NOTHING: Self = Self { lanes: None, f16: false, int64: false };
    /// Subgroups of any size: no device has smaller ones than 4.
    pub const SUBGROUPS: Self = Self::lanes(4);

    /// Subgroups of at least a size.
    pub const fn lanes(lanes: u32) -> Self {
        Self { lanes: Some(lanes), f16: false, int64: false }
    }

    /// [`Requires::SUBGROUPS`] where the shader uses them.
    pub const fn subgroups_if(used: bool) -> Self {
        if used { Self::SUBGROUPS } else { Self::NOTHING }
    }
}

/// Data of which a kernel comes with a reader, or writer, of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Data {
    /// One kind only.
    #[default]
    Plain,
    /// Weights in a format.
    Weights(WeightFormat),
    /// Keys and values as f32, or as f16.
    KeysValues {
        /// Whether they are f16.
        f16: bool,
    },
}

/// Empty, the weights' format, `kv_f32` or `kv_f16`.
impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => Ok(()),
            Self::Weights(format) => format.fmt(f),
            Self::KeysValues { f16 } => f.write_str(if *f16 { "kv_f16" } else { "kv_f32" }),
        }
    }
}

/// What a self-test is about, as text: `kernel/variant`, and `/data` behind it where there are several readers.
pub fn key(kernel: &str, variant: &str, data: Data) -> String {
    match data {
        Data::Plain => format!("{kernel}/{variant}"),
        data => format!("{kernel}/{variant}/{data}"),
    }
}

/// Constants that say how work is divided, as the shaders call them.
const SIZES: [&str; 12] = ["WG", "ROWS", "COLS", "TM", "TN", "TX", "TY", "BK8", "R", "RT", "KG", "VEC"];

/// One pipeline of a kernel: what `select` returns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Choice {
    /// Root file below `shaders/`.
    pub file: &'static str,
    /// Name of the variant: what it needs or does.
    pub variant: &'static str,
    /// Constants and parts.
    pub selection: Selection,
    /// Invocations of a workgroup; checked against the device and, in tests, against the shader.
    pub invocations: u32,
    /// Bytes of workgroup memory; checked likewise.
    pub workgroup_bytes: u32,
    /// What else a device must have; in tests checked against what the shader enables.
    pub requires: Requires,
    /// Which of several readers of data the parts hold.
    pub data: Data,
}

impl Choice {
    /// Variant, sizes and data in a few words: `lanes_subgroup wg 8 rows 4 cols 1 int4-g32-f16-z8`. Not all that tells
    /// pipelines apart, which the selection does.
    pub fn words(&self) -> String {
        let mut words = self.variant.to_owned();
        for name in SIZES {
            if let Some(size) = self.selection.get_u32(name) {
                let _ = write!(words, " {} {size}", name.to_ascii_lowercase());
            }
        }
        if self.data != Data::Plain {
            let _ = write!(words, " {}", self.data);
        }
        words
    }

    /// The [`key`] of this choice of a kernel.
    pub fn key(&self, kernel: &str) -> String {
        key(kernel, self.variant, self.data)
    }
}

/// One way of running a kernel.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Pipeline.
    pub choice: Choice,
    /// Bytes of `Params`.
    pub params: Vec<u8>,
    /// Workgroups; at most, of a recorded dispatch that takes them from a buffer.
    pub grid: [u32; 3],
    /// The grid comes from a buffer.
    pub indirect: bool,
}

impl Launch {
    /// A launch with so many workgroups.
    pub fn new(choice: Choice, params: &impl Pod, grid: [u32; 3]) -> Self {
        Self { choice, params: bytemuck::bytes_of(params).to_vec(), grid, indirect: false }
    }
}

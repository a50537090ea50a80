//! Experts that are read from the checkpoint one by one, when they are wanted.

use std::ops::Range;
use std::sync::{Arc, PoisonError};

use girih_ops::{Gpu, Matrix, MatrixInput, OpError, WeightFormat};

use super::experts::{ExpertRows, all_rows};
use super::rows::Origin;
use super::{Weights, upload};
use crate::LoadError;
use crate::checkpoint::quantized::QuantModule;

/// [`ExpertRows`] with names of its own.
#[derive(Clone, Debug)]
enum Names {
    Separate { scope: String, gate_up: [String; 2] },
    SeparateOne { scope: String, name: String },
    Stacked(String),
    StackedInterleaveHalves(String),
    StackedPair(String, String),
    StackedTransposed(String),
}

impl Names {
    fn of(rows: ExpertRows<'_>) -> Result<Self, LoadError> {
        Ok(match rows {
            ExpertRows::Heads(heads) | ExpertRows::HeadsTransposed(heads) => {
                let want = "0: every token needs all of them".into();
                let (what, got) = ("heads that are read one by one", heads.heads.into());
                return Err(OpError::Value { op: "experts", what, got, want }.into());
            }
            ExpertRows::Separate { scope, gate_up } => {
                Self::Separate { scope: scope.to_owned(), gate_up: gate_up.map(str::to_owned) }
            }
            ExpertRows::SeparateOne { scope, name } => {
                Self::SeparateOne { scope: scope.to_owned(), name: name.to_owned() }
            }
            ExpertRows::Stacked(name) => Self::Stacked(name.to_owned()),
            ExpertRows::StackedInterleaveHalves(name) => Self::StackedInterleaveHalves(name.to_owned()),
            ExpertRows::StackedPair(gate, up) => Self::StackedPair(gate.to_owned(), up.to_owned()),
            ExpertRows::StackedTransposed(name) => Self::StackedTransposed(name.to_owned()),
        })
    }

    fn rows(&self) -> ExpertRows<'_> {
        match self {
            Self::Separate { scope, gate_up: [gate, up] } => {
                ExpertRows::Separate { scope, gate_up: [gate, up] }
            }
            Self::SeparateOne { scope, name } => ExpertRows::SeparateOne { scope, name },
            Self::Stacked(name) => ExpertRows::Stacked(name),
            Self::StackedInterleaveHalves(name) => ExpertRows::StackedInterleaveHalves(name),
            Self::StackedPair(gate, up) => ExpertRows::StackedPair(gate, up),
            Self::StackedTransposed(name) => ExpertRows::StackedTransposed(name),
        }
    }
}

/// The matrices `[E, N, K]` of all experts in a checkpoint: what is known of them without their rows, which are read one
/// expert at a time in the formats that [`Weights::experts`] would give them on the GPU.
#[derive(Clone, Debug)]
pub struct ExpertReader {
    weights: Weights,
    names: Names,
    shape: [u32; 3],
    /// Of each expert.
    formats: Vec<WeightFormat>,
    input: MatrixInput,
}

/// The rows of one expert, as a matrix takes them.
#[derive(Clone, Debug)]
pub enum ExpertWords {
    /// Elements without padding.
    Dense(Vec<u8>),
    /// Words of codes and scales.
    Codes(Vec<u32>, Vec<u32>),
}

impl ExpertWords {
    /// Bytes on the host.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Dense(bytes) => bytes.len() as u64,
            Self::Codes(codes, scales) => 4 * (codes.len() + scales.len()) as u64,
        }
    }

    /// Writes them as rows of a matrix of the format that they have, from `row` on.
    ///
    /// # Errors
    /// As [`Matrix::write_rows`] and [`Matrix::write_packed_rows`].
    pub fn write(&self, gpu: &Gpu, matrix: &Matrix, row: u32) -> Result<(), OpError> {
        match self {
            Self::Dense(bytes) => matrix.write_rows(gpu, row, bytes),
            Self::Codes(codes, scales) => matrix.write_packed_rows(gpu, row, codes, scales),
        }
    }
}

impl Weights {
    /// The matrices of all experts, to be read one by one later. What [`Weights::experts`] would refuse is refused now, the
    /// values apart. Of stacks of quantised experts, what is small (scales) stays on the host.
    ///
    /// # Errors
    /// As [`Weights::experts`].
    pub async fn expert_reader(
        &self,
        gpu: &Gpu,
        rows: ExpertRows<'_>,
        [e, n, k]: [u32; 3],
    ) -> Result<ExpertReader, LoadError> {
        let all = all_rows([e, n, k])?;
        let segments = self.expert_segments(rows, [e, n], Some(k), 0..e).await?;
        if !matches!(rows, ExpertRows::Separate { .. } | ExpertRows::SeparateOne { .. }) {
            for segment in &segments {
                if let Origin::Quant(module, name) = &segment.origin {
                    self.keep_stack(name, module);
                }
            }
        }
        let layout = self.layout(&segments, [e, all], self.policy())?;
        let formats = layout.parts.iter().flat_map(|&(rows, f)| std::iter::repeat_n(f, (rows / n) as usize));
        Ok(ExpertReader {
            weights: self.clone(),
            names: Names::of(rows)?,
            shape: [e, n, k],
            formats: formats.collect(),
            input: upload::input(gpu, layout.activation, &layout.input, k)?,
        })
    }

    /// A stack whose small parts were read before.
    pub(super) fn kept_stack(&self, full: &str) -> Option<Arc<QuantModule>> {
        self.loading.stacks.lock().unwrap_or_else(PoisonError::into_inner).get(full).cloned()
    }

    fn keep_stack(&self, full: &str, module: &Arc<QuantModule>) {
        let mut stacks = self.loading.stacks.lock().unwrap_or_else(PoisonError::into_inner);
        stacks.entry(full.to_owned()).or_insert_with(|| module.clone());
    }
}

impl ExpertReader {
    /// Experts, rows of each, columns.
    pub fn shape(&self) -> [u32; 3] {
        self.shape
    }

    /// The format of each expert.
    pub fn formats(&self) -> &[WeightFormat] {
        &self.formats
    }

    /// What the matrices want done with x.
    pub fn input(&self) -> &MatrixInput {
        &self.input
    }

    /// Reads the rows of an expert.
    ///
    /// # Errors
    /// An expert that there is not; files that are no longer what they were, values that the format cannot hold.
    pub async fn read(&self, expert: u32) -> Result<ExpertWords, LoadError> {
        let [e, n, k] = self.shape;
        let Some(&format) = self.formats.get(expert as usize) else {
            let (got, want) = (expert.into(), format!("below {e}"));
            return Err(OpError::Value { op: "experts", what: "expert", got, want }.into());
        };
        let one = expert..expert + 1;
        let segments = self.weights.expert_segments(self.names.rows(), [e, n], Some(k), one).await?;
        let rows: Range<u32> = expert * n..(expert + 1) * n;
        Ok(match format {
            WeightFormat::Quant(format) => {
                let (codes, scales) = self.weights.packed_rows(&segments, &rows, k, format).await?;
                ExpertWords::Codes(codes, scales)
            }
            dense => ExpertWords::Dense(self.weights.rows(&segments, &rows, k, dense).await?),
        })
    }
}

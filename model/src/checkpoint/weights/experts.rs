//! The matrices of all experts of a mixture.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use girih_ops::{Gpu, Matrix, OpError};

use super::rows::{HeadRows, Origin, Segment};
use super::{WeightPolicy, Weights};
use crate::LoadError;
use crate::checkpoint::source::ByteSource;
use crate::checkpoint::table::TensorInfo;
use crate::checkpoint::tensors::{float_type, mis_shaped};

/// Rows of the matrices of all experts, as they lie in the checkpoint. Names are relative to the scope; those of stacks
/// are tensors or quantised modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertRows<'a> {
    /// Tensors of each expert, rows of gate and up alternately: `experts.N.gate_proj.weight`.
    Separate {
        /// `experts`
        scope: &'a str,
        /// `gate_proj`, `up_proj`
        gate_up: [&'a str; 2],
    },
    /// One tensor of each expert.
    SeparateOne {
        /// `experts`
        scope: &'a str,
        /// `down_proj`
        name: &'a str,
    },
    /// A tensor `[E, N, K]`.
    Stacked(&'a str),
    /// A tensor `[E, 2I, K]`, gate rows first; they are put alternately.
    StackedInterleaveHalves(&'a str),
    /// Two tensors `[E, I, K]`, rows alternately.
    StackedPair(&'a str, &'a str),
    /// A tensor of floats `[E, K, N]`.
    StackedTransposed(&'a str),
    /// Rows of each head of a module: a matrix `[N, K]` of each of N rows.
    Heads(&'a HeadRows<'a>),
    /// The same, transposed: a matrix `[N, K]` of each of K rows.
    HeadsTransposed(&'a HeadRows<'a>),
}

impl Weights {
    /// The matrices of all experts `[E, N, K]` on the GPU, in the formats of [`Weights::matrix`]: those of experts may
    /// differ, but not within an expert (such ones are decoded to f32, as alternate rows are). Activations and transforms of
    /// x are the same for all.
    ///
    /// # Errors
    /// As [`Weights::matrix`]; another number of experts; 2^32 rows and more of all.
    pub async fn experts(
        &self,
        gpu: &Gpu,
        rows: ExpertRows<'_>,
        [e, n, k]: [u32; 3],
    ) -> Result<Matrix, LoadError> {
        let all = all_rows([e, n, k])?;
        let segments = self.expert_segments(rows, [e, n], Some(k), 0..e).await?;
        let layout = self.layout(&segments, [e, all], self.policy())?;
        self.upload(gpu, segments, layout, [e, n, k]).await
    }

    /// The same rows on the host, in f32, as [`Weights::matrix_f32`].
    ///
    /// # Errors
    /// As [`Weights::experts`].
    pub async fn experts_f32(
        &self,
        rows: ExpertRows<'_>,
        [e, n, k]: [u32; 3],
    ) -> Result<Vec<f32>, LoadError> {
        let all = all_rows([e, n, k])?;
        let segments = self.expert_segments(rows, [e, n], Some(k), 0..e).await?;
        self.matrix_values(&segments, 0..all, k).await
    }

    /// The rows `[N, K]` of one expert on the host, in f32, as [`Weights::matrix_f32`].
    ///
    /// # Errors
    /// As [`Weights::experts`]; an expert that there is none of.
    pub async fn expert_f32(
        &self,
        rows: ExpertRows<'_>,
        [e, n, k]: [u32; 3],
        expert: u32,
    ) -> Result<Vec<f32>, LoadError> {
        all_rows([e, n, k])?;
        if expert >= e {
            let (got, want) = (expert.into(), format!("one of {e}"));
            return Err(OpError::Value { op: "experts", what: "expert", got, want }.into());
        }
        let segments = self.expert_segments(rows, [e, n], Some(k), 0..e).await?;
        self.matrix_values(&segments, expert * n..(expert + 1) * n, k).await
    }

    /// The tensors of floats that the matrices of all experts are read from, in the order of names.
    ///
    /// # Errors
    /// As [`Weights::experts`].
    pub async fn expert_tensors(
        &self,
        rows: ExpertRows<'_>,
        [e, n, k]: [u32; 3],
    ) -> Result<Vec<TensorInfo>, LoadError> {
        all_rows([e, n, k])?;
        let segments = self.expert_segments(rows, [e, n], Some(k), 0..e).await?;
        let tensors = segments.iter().filter_map(|s| s.origin.dense());
        let tensors: BTreeMap<&str, &TensorInfo> = tensors.map(|info| (info.name.as_str(), info)).collect();
        Ok(tensors.into_values().cloned().collect())
    }

    /// The biases of all experts `[E, N]`, in the order of their rows; separate ones are `experts.N.gate_proj.bias`.
    ///
    /// # Errors
    /// As [`Weights::f32`]; another number of experts or elements.
    pub async fn experts_bias_f32(
        &self,
        rows: ExpertRows<'_>,
        [e, n]: [u32; 2],
    ) -> Result<Vec<f32>, LoadError> {
        let all = all_rows([e, n, 1])?;
        let segments = self.expert_segments(rows, [e, n], None, 0..e).await?;
        for info in segments.iter().filter_map(|s| s.origin.dense()) {
            float_type(info)?;
        }
        self.vector_values(&segments, all).await
    }

    /// The matrix of a router `[E, D]` on the GPU, as the checkpoint stores it, whatever the policy.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub async fn router(&self, gpu: &Gpu, name: &str, [e, d]: [u32; 2]) -> Result<Matrix, LoadError> {
        let segments = self.segments(&name.into(), e, Some(d)).await?;
        let layout = self.layout(&segments, [1, e], WeightPolicy::default())?;
        self.upload(gpu, segments, layout, [1, e, d]).await
    }

    /// Where the rows of experts come from, in the order of experts; together they fill `n` rows of `k` (elements if `k` is
    /// `None`) of each of the `which` exactly once, those of expert i from row `i * n` on. What holds all experts in one is
    /// there as a whole.
    pub(super) async fn expert_segments(
        &self,
        rows: ExpertRows<'_>,
        [e, n]: [u32; 2],
        k: Option<u32>,
        which: Range<u32>,
    ) -> Result<Vec<Segment<'_>>, LoadError> {
        let halves = match rows {
            ExpertRows::Separate { gate_up: [name, _], .. }
            | ExpertRows::StackedInterleaveHalves(name)
            | ExpertRows::StackedPair(name, _) => {
                if !n.is_multiple_of(2) {
                    let got = [n].into_iter().chain(k).map(u64::from).collect();
                    let want = [n + 1].into_iter().chain(k).map(u64::from).collect();
                    return Err(mis_shaped(self.full(name), got, want));
                }
                n / 2
            }
            _ => n,
        };
        let [experts, rows_of, half] = [e, n, halves].map(u64::from);
        let whole =
            |origin, first, i: u64| Segment { origin, first, rows: rows_of, dst: i * rows_of, stride: 1 };
        let alternate = |origin, first, i: u64, which| Segment {
            origin,
            first,
            rows: half,
            dst: i * rows_of + which,
            stride: 2,
        };
        let mut segments = Vec::new();
        match rows {
            ExpertRows::Separate { scope, gate_up } => {
                for i in which {
                    for (first, name) in (0..).zip(gate_up) {
                        let origin = self.expert(scope, i, name, half, k).await?;
                        segments.push(alternate(origin, 0, i.into(), first));
                    }
                }
            }
            ExpertRows::SeparateOne { scope, name } => {
                for i in which {
                    let origin = self.expert(scope, i, name, rows_of, k).await?;
                    segments.push(whole(origin, 0, i.into()));
                }
            }
            ExpertRows::StackedTransposed(name) if let Some(k) = k => {
                let info = self.tensors.find(name)?;
                let stack = Transposed { info, n: n.into(), k: k.into(), last: Mutex::default() };
                let origin = Origin::Transposed(Arc::new(stack));
                origin.check_shape(&[e, k, n].map(u64::from))?;
                segments.push(Segment { origin, first: 0, rows: experts * rows_of, dst: 0, stride: 1 });
            }
            ExpertRows::Stacked(name) | ExpertRows::StackedTransposed(name) => {
                let origin = self.stack(name, [e, n], k).await?;
                segments.push(Segment { origin, first: 0, rows: experts * rows_of, dst: 0, stride: 1 });
            }
            ExpertRows::Heads(heads) => return self.head_segments(heads, experts * rows_of, k).await,
            ExpertRows::HeadsTransposed(heads) => segments.push(self.transposed_heads(heads, n).await?),
            ExpertRows::StackedInterleaveHalves(name) => {
                let origin = self.stack(name, [e, n], k).await?;
                for i in which.map(u64::from) {
                    segments.push(alternate(origin.clone(), i * rows_of, i, 0));
                    segments.push(alternate(origin.clone(), i * rows_of + half, i, 1));
                }
            }
            ExpertRows::StackedPair(gate, up) => {
                let gate = self.stack(gate, [e, halves], k).await?;
                let up = self.stack(up, [e, halves], k).await?;
                for i in which.map(u64::from) {
                    segments.push(alternate(gate.clone(), i * half, i, 0));
                    segments.push(alternate(up.clone(), i * half, i, 1));
                }
            }
        }
        Ok(segments)
    }

    /// A projection of one expert, or its bias.
    async fn expert(
        &self,
        scope: &str,
        i: u32,
        name: &str,
        rows: u64,
        k: Option<u32>,
    ) -> Result<Origin<'_>, LoadError> {
        let kind = if k.is_some() { "weight" } else { "bias" };
        let origin = self.origin(&format!("{scope}.{i}.{name}.{kind}"), k).await?;
        origin.check_shape(&[rows].into_iter().chain(k.map(u64::from)).collect::<Vec<_>>())?;
        Ok(origin)
    }

    /// A tensor or quantised module of all experts.
    async fn stack(&self, name: &str, [e, n]: [u32; 2], k: Option<u32>) -> Result<Origin<'_>, LoadError> {
        let want: Vec<u64> = [e, n].into_iter().chain(k).map(u64::from).collect();
        let full = self.full(name);
        let origin = match k {
            Some(_) if let Some(module) = self.kept_stack(&full) => Origin::Quant(module, full.clone()),
            Some(columns) if !self.tensors.has_tensor(name) => {
                match self.loading.quantization.modules.get(&full) {
                    Some(stored) => {
                        let module = stored.open(&self.tensors.at(full.clone()), Some(columns)).await?;
                        Origin::Quant(Arc::new(module), full.clone())
                    }
                    None => self.origin(name, k).await?,
                }
            }
            _ => self.origin(name, k).await?,
        };
        if origin.quant().is_none() {
            origin.check_shape(&want)?;
            return Ok(origin);
        }
        // A module knows the rows of all experts; how many there are, its tensor does.
        let blocks = format!("{full}_blocks");
        if let Some(info) = [&full, &blocks].into_iter().find_map(|name| self.table().get(name))
            && !info.shape.starts_with(&want[..2])
        {
            return Err(mis_shaped(info.name.clone(), info.shape.clone(), want));
        }
        let all: Vec<u64> = [u64::from(e) * u64::from(n)].into_iter().chain(k.map(u64::from)).collect();
        origin.check_shape(&all)?;
        Ok(origin)
    }
}

/// Rows of all experts.
pub(super) fn all_rows([e, n, k]: [u32; 3]) -> Result<u32, LoadError> {
    match e.checked_mul(n) {
        _ if k == 0 => {
            let (what, want) = ("columns of an expert", "at least 1".to_owned());
            Err(OpError::Value { op: "experts", what, got: 0.0, want }.into())
        }
        Some(all) if all > 0 => Ok(all),
        _ => {
            let (got, want) = (f64::from(e) * f64::from(n), "1 to 2^32 - 1".to_owned());
            Err(OpError::Value { op: "experts", what: "rows of all experts", got, want }.into())
        }
    }
}

/// A tensor of floats `[E, K, N]`, read as `[E, N, K]`.
pub(super) struct Transposed<'a> {
    pub info: &'a TensorInfo,
    n: u64,
    k: u64,
    /// The expert that was read last, its elements in the order of rows.
    last: Mutex<Option<(u64, Arc<Vec<u8>>)>>,
}

impl Transposed<'_> {
    /// Some rows of all experts' rows.
    pub async fn rows(&self, source: &dyn ByteSource, rows: Range<u64>) -> Result<Vec<u8>, LoadError> {
        let row_bytes = self.k * self.info.dtype.bits() / 8;
        let mut out = Vec::with_capacity(((rows.end - rows.start) * row_bytes) as usize);
        let mut row = rows.start;
        while row < rows.end {
            let expert = row / self.n;
            let first = expert * self.n;
            let end = rows.end.min(first + self.n);
            let bytes = self.expert(source, expert).await?;
            out.extend_from_slice(
                &bytes[((row - first) * row_bytes) as usize..((end - first) * row_bytes) as usize],
            );
            row = end;
        }
        Ok(out)
    }

    async fn expert(&self, source: &dyn ByteSource, expert: u64) -> Result<Arc<Vec<u8>>, LoadError> {
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut last = last();
            if let Some((_, bytes)) = last.as_ref().filter(|(read, _)| *read == expert) {
                return Ok(bytes.clone());
            }
            // Its memory is free before the next one is read.
            *last = None;
        }
        let element = self.info.dtype.bits() / 8;
        let size = self.n * self.k * element;
        let start = self.info.range.start + expert * size;
        let stored = source.read(&self.info.file, start..start + size).await?;
        let bytes = Arc::new(match element {
            2 => transpose::<2>(&stored, self.n, self.k),
            4 => transpose::<4>(&stored, self.n, self.k),
            _ => transpose::<8>(&stored, self.n, self.k),
        });
        *last() = Some((expert, bytes.clone()));
        Ok(bytes)
    }

    /// An error about an element, whose index is that of a row, with the index that the element has in the checkpoint.
    pub fn as_stored(&self, mut error: LoadError) -> LoadError {
        if let LoadError::NotFinite { index, .. } | LoadError::OutOfRange { index, .. } = &mut error {
            let (row, column) = (*index / self.k, *index % self.k);
            let (expert, row) = (row / self.n, row % self.n);
            *index = (expert * self.k + column) * self.n + row;
        }
        error
    }
}

/// Elements `[K, N]` of B bytes as `[N, K]`.
fn transpose<const B: usize>(stored: &[u8], n: u64, k: u64) -> Vec<u8> {
    // Rows at a time whose cache lines are still there for the next column.
    const TILE: usize = 32;
    let (n, k) = (n as usize, k as usize);
    let stored = stored.as_chunks::<B>().0;
    let mut out = vec![[0; B]; n * k];
    for first in (0..n).step_by(TILE) {
        let rows = first..n.min(first + TILE);
        for (column, values) in stored.chunks_exact(n).enumerate() {
            for row in rows.clone() {
                out[row * k + column] = values[row];
            }
        }
    }
    out.into_flattened()
}

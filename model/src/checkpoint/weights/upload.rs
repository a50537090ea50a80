//! Tensors and matrices on the GPU.

use std::ops::Range;
use std::sync::PoisonError;

use girih_ops::kernels::quant::QuantActivation;
use girih_ops::{Gpu, Matrix, Tensor, WeightFormat};

use super::layout::Layout;
use super::rows::Segment;
use super::{TensorRows, WeightPolicy, Weights};
use crate::LoadError;
use crate::checkpoint::quantized::{self, ChannelMix};

/// Bytes of rows in flight on the host, in the wider of stored and wanted type.
const CHUNK: u64 = 32 << 20;
/// Uploads are staged by the device; this many bytes later it is waited for, so that staging memory is bounded too.
const FLUSH: u64 = 64 << 20;

impl Weights {
    /// A tensor on the GPU, in f32.
    ///
    /// # Errors
    /// As [`Weights::f32`]; memory that is exhausted.
    pub async fn tensor(&self, gpu: &Gpu, name: &str, shape: &[u32]) -> Result<Tensor, LoadError> {
        let values = self.f32(name, shape).await?;
        self.flush(gpu, 4 * values.len() as u64).await?;
        self.place(4 * values.len() as u64, values.len() as u64);
        Ok(Tensor::from_f32(gpu, &values, shape)?)
    }

    /// The matrix `[n, k]` of a linear layer on the GPU, in the checkpoint's format (dense parts that differ: f32)
    /// unless the policy forces one. Parts of a [`TensorRows::Concat`] may differ in format. Where quantised rows cannot
    /// become one matrix as they are (other formats in alternate rows, other permutations of x), they are decoded to
    /// f32, which is exact, and the report says so.
    ///
    /// # Errors
    /// As [`Weights::f32`]; another number of rows; values that the forced type cannot hold; layouts that are not
    /// what the configuration says; modules whose activations or transforms of x differ.
    pub async fn matrix(
        &self,
        gpu: &Gpu,
        rows: impl Into<TensorRows<'_>>,
        n: u32,
        k: u32,
    ) -> Result<Matrix, LoadError> {
        let segments = self.segments(&rows.into(), n, Some(k)).await?;
        let layout = self.layout(&segments, [1, n], self.policy())?;
        self.upload(gpu, segments, layout, [1, n, k]).await
    }

    /// A matrix whose rows are looked up (embeddings): quantised only if the checkpoint stores it so.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub async fn table_matrix(
        &self,
        gpu: &Gpu,
        rows: impl Into<TensorRows<'_>>,
        n: u32,
        k: u32,
    ) -> Result<Matrix, LoadError> {
        let segments = self.segments(&rows.into(), n, Some(k)).await?;
        let quantised = segments.iter().any(|s| s.origin.quant().is_some());
        let dense = |f: &WeightFormat| !quantised && !matches!(f, WeightFormat::Quant(_));
        let force = self.policy().force.filter(dense);
        let layout = self.layout(&segments, [1, n], WeightPolicy { force, activations: None })?;
        self.upload(gpu, segments, layout, [1, n, k]).await
    }

    /// Uploads the matrices `[n, k]` of experts; one is a matrix whose parts may hold any rows.
    pub(super) async fn upload(
        &self,
        gpu: &Gpu,
        mut segments: Vec<Segment<'_>>,
        layout: Layout,
        [experts, n, k]: [u32; 3],
    ) -> Result<Matrix, LoadError> {
        let mut matrix = if experts == 1 {
            Matrix::alloc_parts(gpu, &layout.parts, k)?
        } else {
            let runs: Vec<_> = layout.parts.iter().map(|&(rows, format)| (rows / n, format)).collect();
            Matrix::alloc_experts(gpu, &runs, [n, k])?
        };
        let mut row0 = 0;
        for (rows, format) in layout.parts {
            // What is only recorded needs no contents.
            let chunks = chunks(rows, k, CHUNK).filter(|_| !gpu.is_recording_only());
            for chunk in chunks {
                let chunk = row0 + chunk.start..row0 + chunk.end;
                let bytes = match format {
                    WeightFormat::Quant(format) => {
                        let (codes, scales) = self.packed_rows(&segments, &chunk, k, format).await?;
                        matrix.write_packed_rows(gpu, chunk.start, &codes, &scales)?;
                        4 * (codes.len() + scales.len())
                    }
                    dense => {
                        let bytes = self.rows(&segments, &chunk, k, dense).await?;
                        matrix.write_rows(gpu, chunk.start, &bytes)?;
                        bytes.len()
                    }
                };
                self.flush(gpu, bytes as u64).await?;
                // Modules that are read as a whole give their memory back when their rows are there.
                segments.retain(|segment| segment.end() > u64::from(chunk.end));
            }
            row0 += rows;
        }
        matrix.input = input(gpu, layout.activation, &layout.input, k)?;
        self.place(matrix.bytes(), u64::from(row0) * u64::from(k));
        Ok(matrix)
    }

    /// Waits for the device now and then, so that it can free the memory of finished uploads.
    async fn flush(&self, gpu: &Gpu, bytes: u64) -> Result<(), LoadError> {
        let due = {
            let mut staged = self.loading.staged.lock().unwrap_or_else(PoisonError::into_inner);
            *staged += bytes;
            let due = *staged >= FLUSH;
            if due {
                *staged = 0;
            }
            due
        };
        if due {
            gpu.read(&gpu.dummy()?).await?;
        }
        Ok(())
    }
}

/// Transforms of x, on the GPU.
pub(super) fn input(
    gpu: &Gpu,
    activation: QuantActivation,
    input: &quantized::InputTransform,
    k: u32,
) -> Result<girih_ops::MatrixInput, LoadError> {
    let square = |(n, values): &(u32, Vec<f32>)| Tensor::from_f32(gpu, values, &[*n, *n]);
    Ok(girih_ops::MatrixInput {
        activation,
        scale: input.scale.as_ref().map(|values| Tensor::from_f32(gpu, values, &[k])).transpose()?,
        mix: match &input.mix {
            ChannelMix::None => girih_ops::Mix::None,
            ChannelMix::Hadamard { block } => girih_ops::Mix::Hadamard { block: *block },
            ChannelMix::Kronecker { p1, p2 } => {
                girih_ops::Mix::Kronecker { p1: square(p1)?, p2: square(p2)? }
            }
            ChannelMix::Permute(perm) => girih_ops::Mix::Permute(Tensor::from_u32(gpu, perm, &[k])?),
        },
    })
}

pub(super) fn chunks(n: u32, k: u32, bytes: u64) -> impl Iterator<Item = Range<u32>> {
    // 8 bytes cover f64, the widest type that is read.
    let rows = (bytes / (8 * u64::from(k)).max(1)).clamp(1, u64::from(n).max(1)) as u32;
    (0..n).step_by(rows as usize).map(move |first| first..first.saturating_add(rows).min(n))
}

//! A place in a checkpoint's tree of names, and the device that its tensors go to.

use std::sync::{Arc, Mutex, PoisonError};

use girih_ops::{Buffer, DType, Gpu, Matrix, Tensor};

use crate::checkpoint::tensors::TensorScope;
use crate::checkpoint::weights::{TensorRows, Weights};
use crate::error::LoadError;
use crate::network::experts::ExpertCache;

/// Bytes that the memory of all vectors has at most.
const VECTORS: u64 = 64 << 20;

/// What layers are loaded from.
#[derive(Clone, Debug)]
pub struct Scope {
    weights: Weights,
    gpu: Gpu,
    /// Memory of all vectors, once there is one, and how much of it is taken.
    vectors: Arc<Mutex<Option<(Buffer, u64)>>>,
    /// Where experts go, if not all of them are to be on the device.
    experts: Option<Arc<ExpertCache>>,
}

impl Scope {
    /// The root of a checkpoint.
    pub fn new(weights: Weights, gpu: &Gpu) -> Self {
        Self { weights, gpu: gpu.clone(), vectors: Arc::default(), experts: None }
    }

    /// The same with experts in a cache.
    #[must_use]
    pub fn with_experts(self, experts: Option<Arc<ExpertCache>>) -> Self {
        Self { experts, ..self }
    }

    /// Where experts go, if not all of them are to be on the device.
    pub fn experts(&self) -> Option<&Arc<ExpertCache>> {
        self.experts.as_ref()
    }

    /// The scope `name` below this one.
    #[must_use]
    pub fn scope(&self, name: &str) -> Self {
        Self { weights: self.weights.scope(name), ..self.clone() }
    }

    /// Names and bytes of tensors.
    pub fn tensors(&self) -> &TensorScope {
        self.weights.tensors()
    }

    /// What matrices are loaded from.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Whether a tensor exists.
    pub fn has(&self, name: &str) -> bool {
        self.weights.has(name)
    }

    /// A small tensor in f32.
    pub async fn tensor(&self, name: &str, shape: &[u32]) -> Result<Tensor, LoadError> {
        if shape.len() == 1 {
            return self.place_vector(&self.weights.f32(name, shape).await?);
        }
        self.weights.tensor(&self.gpu, name, shape).await
    }

    /// A vector of `n` elements in f32, put together from 1-D tensors as a matrix is from rows.
    pub async fn vector(&self, rows: impl Into<TensorRows<'_>>, n: u32) -> Result<Tensor, LoadError> {
        self.place_vector(&self.weights.vector_f32(rows, n).await?)
    }

    /// A vector on the GPU. All vectors of a model lie in one buffer, since products bind the norm before them and the
    /// bias behind as one range. What goes beyond its bound gets memory of its own.
    pub fn place_vector(&self, values: &[f32]) -> Result<Tensor, LoadError> {
        let bytes = 4 * values.len() as u64;
        self.weights.place(bytes, values.len() as u64);
        let align = u64::from(self.gpu.caps().offset_align).max(16);
        let mut vectors = self.vectors.lock().unwrap_or_else(PoisonError::into_inner);
        let (memory, used) = match &mut *vectors {
            Some(vectors) => vectors,
            none => none.insert((self.gpu.alloc(self.vector_bytes(align))?, 0)),
        };
        let shape = [values.len() as u32];
        let Some(range) = memory.slice(*used, bytes) else {
            return Ok(Tensor::from_f32(&self.gpu, values, &shape)?);
        };
        *used += bytes.next_multiple_of(align);
        self.gpu.write(&range, 0, bytemuck::cast_slice(values));
        Ok(Tensor::from_buffer(range, &shape, DType::F32)?)
    }

    /// A vector with memory of its own: biases of all experts, which take more than those of all other layers together.
    pub fn place_apart(&self, values: &[f32]) -> Result<Tensor, LoadError> {
        self.weights.place(4 * values.len() as u64, values.len() as u64);
        Ok(Tensor::from_f32(&self.gpu, values, &[values.len() as u32])?)
    }

    /// Bytes of all 1-D tensors of the checkpoint in f32, each from a multiple of `align` on.
    fn vector_bytes(&self, align: u64) -> u64 {
        let bytes = |shape: &[u64]| match *shape {
            [n] => n.saturating_mul(4).saturating_add(align),
            _ => 0,
        };
        let tensors = self.weights.table().iter();
        tensors.fold(0u64, |all, t| all.saturating_add(bytes(&t.shape))).min(VECTORS)
    }

    /// A table of embeddings.
    pub async fn matrix(&self, name: &str, n: u32, k: u32) -> Result<Matrix, LoadError> {
        self.weights.table_matrix(&self.gpu, name, n, k).await
    }
}

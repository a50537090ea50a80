//! A place in a checkpoint's tree of names, and the device that its tensors go to.

use girih_ops::{Gpu, Matrix, Tensor};

use crate::checkpoint::tensors::TensorScope;
use crate::checkpoint::weights::Weights;
use crate::error::LoadError;

/// What layers are loaded from.
#[derive(Clone, Debug)]
pub struct Scope {
    weights: Weights,
    gpu: Gpu,
}

impl Scope {
    /// The root of a checkpoint.
    pub fn new(weights: Weights, gpu: &Gpu) -> Self {
        Self { weights, gpu: gpu.clone() }
    }

    /// The scope `name` below this one.
    #[must_use]
    pub fn scope(&self, name: &str) -> Self {
        Self { weights: self.weights.scope(name), gpu: self.gpu.clone() }
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
        self.weights.tensor(&self.gpu, name, shape).await
    }

    /// A table of embeddings.
    pub async fn matrix(&self, name: &str, n: u32, k: u32) -> Result<Matrix, LoadError> {
        self.weights.table_matrix(&self.gpu, name, n, k).await
    }
}

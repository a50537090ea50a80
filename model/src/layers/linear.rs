//! A weight matrix with its bias.

use girih_ops::{Frame, Matrix, OpError, Tensor};

use crate::error::LoadError;
use crate::weights::{Rows, Weights};

/// `y = x · Wᵀ + b`, with what the block fuses before and after it.
#[derive(Clone, Debug)]
pub struct Linear {
    matrix: Matrix,
    bias: Option<Tensor>,
}

impl Linear {
    /// Loads rows of one or several checkpoint tensors as one matrix `[n, k]`. `rows` names modules; their
    /// biases are loaded in the same order if the checkpoint has them.
    pub async fn load(w: &Weights, rows: Rows<'_>, n: u32, k: u32) -> Result<Self, LoadError> {
        let bias = if w.has_bias(&rows) { Some(w.bias(&rows, n).await?) } else { None };
        Ok(Self { matrix: w.matrix(&rows, n, k).await?, bias })
    }

    /// A matrix that is already on the GPU.
    pub fn from_matrix(matrix: Matrix) -> Self {
        Self { matrix, bias: None }
    }

    /// The weights.
    pub fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    /// x `[T, K]` → `[T, N]`; `opts` says what is fused (its bias is this layer's).
    pub fn forward<'a>(&'a self, frame: &mut Frame, x: &Tensor, opts: girih_ops::Linear<'a>) -> Result<Tensor, OpError> {
        girih_ops::linear(frame, x, &self.matrix, &girih_ops::Linear { bias: self.bias.as_ref(), ..opts })
    }
}

//! STUB of the loading of experts: signatures only.

use girih_ops::{Gpu, Matrix, OpError};

use super::Weights;
use crate::LoadError;

/// Rows of the matrices of all experts, as they lie in the checkpoint. Names are relative to the scope.
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
    /// A tensor `[E, 2I, K]`, gate rows first.
    StackedInterleaveHalves(&'a str),
    /// Two tensors `[E, I, K]`, rows alternately.
    StackedPair(&'a str, &'a str),
    /// A tensor `[E, K, N]`.
    StackedTransposed(&'a str),
}

fn stub<T>() -> Result<T, LoadError> {
    Err(OpError::Unsupported { op: "experts", what: "not yet".into() }.into())
}

impl Weights {
    /// The matrices of all experts `[E, N, K]`.
    ///
    /// # Errors
    /// Always.
    #[expect(clippy::unused_async, reason = "stub")]
    pub async fn experts(&self, _: &Gpu, _: ExpertRows<'_>, _: [u32; 3]) -> Result<Matrix, LoadError> {
        stub()
    }

    /// The biases of all experts `[E, N]`.
    ///
    /// # Errors
    /// Always.
    #[expect(clippy::unused_async, reason = "stub")]
    pub async fn experts_bias_f32(&self, _: ExpertRows<'_>, _: [u32; 2]) -> Result<Vec<f32>, LoadError> {
        stub()
    }

    /// The matrix of a router `[E, D]`, never quantised.
    ///
    /// # Errors
    /// Always.
    #[expect(clippy::unused_async, reason = "stub")]
    pub async fn router(&self, _: &Gpu, _: &str, _: [u32; 2]) -> Result<Matrix, LoadError> {
        stub()
    }
}

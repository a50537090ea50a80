//! Mixture of experts.

use girih_kernels::matmul::GluAct;
pub use girih_kernels::moe::{Choose, Groups, Normalise, Router, Score, Weight};

use crate::{Frame, Matrix, Norm, OpError, Tensor};

/// What a router has beside the logits.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouterVectors<'a> {
    /// Added to the score for the choice `[E]`.
    pub bias: Option<&'a Tensor>,
    /// Factor of the weight `[E]`.
    pub expert_scale: Option<&'a Tensor>,
}

/// Routes u32 `[T, K, 2]` of logits `[T, E]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn route(
    frame: &mut Frame,
    logits: &Tensor,
    router: &Router,
    vectors: RouterVectors<'_>,
) -> Result<Tensor, OpError> {
    let _ = (frame, logits, router, vectors);
    Err(OpError::Unsupported { op: "route", what: "not yet".into() })
}

/// The gated networks of all experts.
#[derive(Clone, Copy, Debug)]
pub struct Experts<'a> {
    /// Rows of gate and up interleaved `[E, 2 I, D]`.
    pub gate_up: &'a Matrix,
    /// `[2 E I]`
    pub gate_up_bias: Option<&'a Tensor>,
    /// `[E, D, I]`
    pub down: &'a Matrix,
    /// `[E D]`
    pub down_bias: Option<&'a Tensor>,
    /// Activation of the gate.
    pub act: GluAct,
}

/// What is fused with the experts.
#[derive(Clone, Copy, Debug)]
pub struct Mixture<'a> {
    /// Normalisation of x.
    pub norm: Option<Norm<'a>>,
    /// Factor of the sum over experts.
    pub alpha: f32,
    /// Added at the end `[T, D]`.
    pub residual: Option<&'a Tensor>,
}

/// `y[t] = residual + alpha Σ_j w[t, j] · expert_{e[t, j]}(norm(x[t]))`: x `[T, D]`, routes `[T, K, 2]` → y `[T, D]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn mixture(
    frame: &mut Frame,
    x: &Tensor,
    routes: &Tensor,
    experts: &Experts<'_>,
    opts: &Mixture<'_>,
) -> Result<Tensor, OpError> {
    let _ = (frame, x, routes, experts, opts);
    Err(OpError::Unsupported { op: "mixture", what: "not yet".into() })
}

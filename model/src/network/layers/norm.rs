//! Normalisation layers: weights and epsilon; where they are applied is the block's business.

use girih_ops::kernels::matmul::gemv::MAX_M;
use girih_ops::{Frame, OpError, Tensor};

use super::Scope;
use crate::error::LoadError;

/// RMS or layer normalisation over the last axis.
#[derive(Clone, Debug)]
pub enum Norm {
    /// `x / sqrt(mean(x²) + eps) · weight`
    Rms {
        /// `[C]`; holds `1 + w` for checkpoints that store w.
        weight: Tensor,
        /// Added to the mean square.
        eps: f32,
    },
    /// `(x - mean) / sqrt(var + eps) · weight + bias`
    Layer {
        /// `[C]`
        weight: Tensor,
        /// `[C]`
        bias: Option<Tensor>,
        /// Added to the variance.
        eps: f32,
    },
}

impl Norm {
    /// An RMS norm. `plus_one`: the checkpoint stores w, the factor is 1 + w (Gemma).
    pub async fn rms(w: &Scope, size: u32, eps: f32, plus_one: bool) -> Result<Self, LoadError> {
        let mut weight = w.weights().f32("weight", &[size]).await?;
        if plus_one {
            for v in &mut weight {
                *v += 1.0;
            }
        }
        Ok(Self::Rms { weight: w.place_vector(&weight)?, eps })
    }

    /// A layer norm. Checkpoints that were converted from TensorFlow call its weight gamma and its bias beta.
    pub async fn layer(w: &Scope, size: u32, eps: f32, bias: bool) -> Result<Self, LoadError> {
        let name = |now: &'static str, old: &'static str| if !w.has(now) && w.has(old) { old } else { now };
        let bias = if bias { Some(w.tensor(name("bias", "beta"), &[size]).await?) } else { None };
        Ok(Self::Layer { weight: w.tensor(name("weight", "gamma"), &[size]).await?, bias, eps })
    }

    /// The norm as the prologue of a linear layer.
    pub fn prologue(&self) -> girih_ops::Norm<'_> {
        match self {
            Self::Rms { weight, eps } => girih_ops::Norm::Rms { weight, eps: *eps },
            Self::Layer { weight, bias, eps } => {
                girih_ops::Norm::Layer { weight, bias: bias.as_ref(), eps: *eps }
            }
        }
    }

    /// The norm by itself: x `[T, C]` → `[T, C]`.
    pub fn forward(&self, frame: &mut Frame, x: &Tensor) -> Result<Tensor, OpError> {
        match self {
            Self::Rms { weight, eps } => girih_ops::rms_norm(frame, x, weight, *eps),
            Self::Layer { weight, bias, eps } => girih_ops::layer_norm(frame, x, weight, bias.as_ref(), *eps),
        }
    }

    /// x and what is left of its norm: few rows are normalised by each product that reads them, more of them once.
    pub fn once<'a>(
        norm: Option<&'a Self>,
        frame: &mut Frame,
        x: &Tensor,
    ) -> Result<(Tensor, Option<&'a Self>), OpError> {
        let many = x.shape().first().is_some_and(|&rows| rows > MAX_M);
        match norm {
            Some(norm) if many => Ok((norm.forward(frame, x)?, None)),
            norm => Ok((x.clone(), norm)),
        }
    }

    /// The same norm times a factor.
    pub async fn rms_times(w: &Scope, size: u32, eps: f32, factor: f32) -> Result<Self, LoadError> {
        let weight = w.weights().f32("weight", &[size]).await?;
        let weight: Vec<f32> = weight.into_iter().map(|v| v * factor).collect();
        Ok(Self::Rms { weight: w.place_vector(&weight)?, eps })
    }

    /// `residual + norm(x)`.
    pub fn forward_add(&self, frame: &mut Frame, x: &Tensor, residual: &Tensor) -> Result<Tensor, OpError> {
        match self {
            Self::Rms { weight, eps } => girih_ops::rms_norm_add(frame, x, weight, *eps, residual),
            Self::Layer { .. } => {
                let y = self.forward(frame, x)?;
                girih_ops::add(frame, residual, &y)
            }
        }
    }
}

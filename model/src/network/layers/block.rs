//! The five ways in which attention, feed-forward network, norms and residuals are put together.

use girih_ops::{Batch, Frame, OpError, Tensor};

use super::attention::Residual;
use super::{FeedForward, LayerCache, Linear, Norm, SelfAttention, Stream};

/// One decoder layer.
#[derive(Clone, Debug)]
pub enum Block {
    /// Llama and most others.
    PreNorm(PreNorm),
    /// Gemma 2 and 3, GLM 4.
    Sandwich(Sandwich),
    /// OLMo 2.
    PostNorm(PostNorm),
    /// Cohere.
    Parallel(Parallel),
    /// MiniMax.
    NormedResidual(NormedResidual),
}

impl Block {
    /// The attention of the layer.
    pub fn attention(&self) -> &SelfAttention {
        match self {
            Self::PreNorm(b) => &b.attn,
            Self::Sandwich(b) => &b.attn,
            Self::PostNorm(b) => &b.attn,
            Self::Parallel(b) => &b.attn,
            Self::NormedResidual(b) => &b.attn,
        }
    }

    /// The feed-forward network of the layer.
    pub fn feed_forward(&self) -> &FeedForward {
        match self {
            Self::PreNorm(b) => &b.mlp,
            Self::Sandwich(b) => &b.mlp,
            Self::PostNorm(b) => &b.mlp,
            Self::Parallel(b) => &b.mlp,
            Self::NormedResidual(b) => &b.mlp,
        }
    }

    /// Its matrices that every token is multiplied with, in the order in which they are used.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.attention().linears().into_iter().chain(self.feed_forward().linears())
    }

    /// x `[T, C]` → `[T, C]`
    pub fn forward<'a>(
        &'a self,
        frame: &mut Frame,
        x: Stream<'_>,
        batch: &Batch,
        cache: &LayerCache,
    ) -> Result<Stream<'a>, OpError> {
        match self {
            Self::PreNorm(b) => {
                let x = x.value(frame)?;
                Ok(Stream::Value(b.forward(frame, &x, batch, cache)?))
            }
            Self::Sandwich(b) => b.forward(frame, x, batch, cache),
            Self::PostNorm(b) => b.forward(frame, x, batch, cache),
            Self::Parallel(b) => {
                let x = x.value(frame)?;
                Ok(Stream::Value(b.forward(frame, &x, batch, cache)?))
            }
            Self::NormedResidual(b) => {
                let x = x.value(frame)?;
                Ok(Stream::Value(b.forward(frame, &x, batch, cache)?))
            }
        }
    }
}

/// `x += α attn(norm(x)); x += α mlp(norm(x))`
#[derive(Clone, Debug)]
pub struct PreNorm {
    /// Norm before attention.
    pub attn_norm: Norm,
    /// Attention.
    pub attn: SelfAttention,
    /// Norm before the MLP.
    pub mlp_norm: Norm,
    /// MLP.
    pub mlp: FeedForward,
    /// α: 1 but for Granite.
    pub residual_multiplier: f32,
}

impl PreNorm {
    fn forward(
        &self,
        frame: &mut Frame,
        x: &Tensor,
        batch: &Batch,
        cache: &LayerCache,
    ) -> Result<Tensor, OpError> {
        let alpha = self.residual_multiplier;
        let fused = Residual { norm: Some(&self.attn_norm), alpha, residual: Some(x) };
        let x = self.attn.forward(frame, x, batch, cache, fused)?;
        let fused = Residual { norm: Some(&self.mlp_norm), alpha, residual: Some(&x) };
        self.mlp.forward(frame, &x, fused)
    }
}

/// `x += norm(attn(norm(x))); x += norm(mlp(norm(x)))`
#[derive(Clone, Debug)]
pub struct Sandwich {
    /// Norm before attention.
    pub attn_norm: Norm,
    /// Attention.
    pub attn: SelfAttention,
    /// Norm of what attention returns.
    pub attn_post_norm: Norm,
    /// Norm before the MLP.
    pub mlp_norm: Norm,
    /// MLP.
    pub mlp: FeedForward,
    /// Norm of what the MLP returns.
    pub mlp_post_norm: Norm,
}

impl Sandwich {
    fn forward<'a>(
        &'a self,
        frame: &mut Frame,
        x: Stream<'_>,
        batch: &Batch,
        cache: &LayerCache,
    ) -> Result<Stream<'a>, OpError> {
        let (residual, x) = self.attn.forward_stream(frame, x, Some(&self.attn_norm), batch, cache)?;
        let x = Stream::NormAdd { residual, norm: &self.attn_post_norm, x };
        let (residual, x) = self.mlp.forward_stream(frame, x, Some(&self.mlp_norm))?;
        Ok(Stream::NormAdd { residual, norm: &self.mlp_post_norm, x })
    }
}

/// `x += norm(attn(x)); x += norm(mlp(x))`
#[derive(Clone, Debug)]
pub struct PostNorm {
    /// Attention.
    pub attn: SelfAttention,
    /// Norm of what attention returns.
    pub attn_post_norm: Norm,
    /// MLP.
    pub mlp: FeedForward,
    /// Norm of what the MLP returns.
    pub mlp_post_norm: Norm,
}

impl PostNorm {
    fn forward<'a>(
        &'a self,
        frame: &mut Frame,
        x: Stream<'_>,
        batch: &Batch,
        cache: &LayerCache,
    ) -> Result<Stream<'a>, OpError> {
        let (residual, x) = self.attn.forward_stream(frame, x, None, batch, cache)?;
        let x = Stream::NormAdd { residual, norm: &self.attn_post_norm, x };
        let (residual, x) = self.mlp.forward_stream(frame, x, None)?;
        Ok(Stream::NormAdd { residual, norm: &self.mlp_post_norm, x })
    }
}

/// `x += attn(norm(x)) + mlp(norm(x))`, one norm for both.
#[derive(Clone, Debug)]
pub struct Parallel {
    /// Norm before both.
    pub norm: Norm,
    /// Attention.
    pub attn: SelfAttention,
    /// MLP.
    pub mlp: FeedForward,
}

impl Parallel {
    fn forward(
        &self,
        frame: &mut Frame,
        x: &Tensor,
        batch: &Batch,
        cache: &LayerCache,
    ) -> Result<Tensor, OpError> {
        let fused = Residual { norm: Some(&self.norm), alpha: 1.0, residual: Some(x) };
        let y = self.attn.forward(frame, x, batch, cache, fused)?;
        self.mlp.forward(frame, x, Residual { residual: Some(&y), ..fused })
    }
}

/// `n = norm(x); x = α n + β attn(n); n = norm(x); x = α n + β mlp(n)`: what is added to is the norm, not x.
#[derive(Clone, Debug)]
pub struct NormedResidual {
    /// Norm before attention, and the same times α of attention.
    pub attn_norms: [Norm; 2],
    /// Attention.
    pub attn: SelfAttention,
    /// β of attention.
    pub attn_beta: f32,
    /// Norm before the MLP, and the same times its α.
    pub mlp_norms: [Norm; 2],
    /// MLP.
    pub mlp: FeedForward,
    /// β of the MLP.
    pub mlp_beta: f32,
}

impl NormedResidual {
    fn forward(
        &self,
        frame: &mut Frame,
        x: &Tensor,
        batch: &Batch,
        cache: &LayerCache,
    ) -> Result<Tensor, OpError> {
        let [norm, scaled] = &self.attn_norms;
        let residual = scaled.forward(frame, x)?;
        let fused = Residual { norm: Some(norm), alpha: self.attn_beta, residual: Some(&residual) };
        let x = self.attn.forward(frame, x, batch, cache, fused)?;
        let [norm, scaled] = &self.mlp_norms;
        let residual = scaled.forward(frame, &x)?;
        let fused = Residual { norm: Some(norm), alpha: self.mlp_beta, residual: Some(&residual) };
        self.mlp.forward(frame, &x, fused)
    }
}

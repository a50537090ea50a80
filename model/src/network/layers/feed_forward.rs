//! The feed-forward network of a layer.

use girih_ops::{Frame, OpError, Tensor};

use super::{Linear, Mixture, Mlp, Norm, Residual, Stream};

/// What follows attention in a layer.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a few dozen for a model, mostly of one kind")]
pub enum FeedForward {
    /// One gated network for all tokens.
    Dense(Mlp),
    /// Networks among which a router chooses for each token.
    Mixture(Box<Mixture>),
}

impl FeedForward {
    /// The mixture of experts, if it is one.
    pub fn mixture(&self) -> Option<&Mixture> {
        match self {
            Self::Dense(_) => None,
            Self::Mixture(mixture) => Some(mixture),
        }
    }

    /// Its matrices that every token is multiplied with, in the order in which they are used.
    pub fn linears(&self) -> Vec<&Linear> {
        match self {
            Self::Dense(mlp) => mlp.linears().to_vec(),
            Self::Mixture(mixture) => mixture.linears(),
        }
    }

    /// `residual + alpha · f(norm(x))`: x `[T, C]` → `[T, C]`.
    pub fn forward(&self, frame: &mut Frame, x: &Tensor, fused: Residual<'_>) -> Result<Tensor, OpError> {
        match self {
            Self::Dense(mlp) => mlp.forward(frame, x, fused),
            Self::Mixture(mixture) => mixture.forward(frame, x, fused),
        }
    }

    /// `f(norm(x))` of the residual stream x, and the value of that: `[T, C]`, `[T, C]`.
    pub fn forward_stream(
        &self,
        frame: &mut Frame,
        stream: Stream<'_>,
        norm: Option<&Norm>,
    ) -> Result<(Tensor, Tensor), OpError> {
        match self {
            Self::Dense(mlp) => mlp.forward_stream(frame, stream, norm),
            Self::Mixture(mixture) => mixture.forward_stream(frame, stream, norm),
        }
    }
}

impl From<Mlp> for FeedForward {
    fn from(mlp: Mlp) -> Self {
        Self::Dense(mlp)
    }
}

impl From<Mixture> for FeedForward {
    fn from(mixture: Mixture) -> Self {
        Self::Mixture(Box::new(mixture))
    }
}

//! The attention of a layer.

use girih_ops::{Batch, Frame, Gpu, KvSize, KvView, OpError, RopeTable, Tensor};

use super::{Attention, LatentAttention, Linear, Norm, Residual, Stream};

/// What mixes the tokens of a sequence.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a few dozen for a model, all of one kind")]
pub enum SelfAttention {
    /// Keys and values of each key head.
    Grouped(Attention),
    /// One latent for all heads.
    Latent(Box<LatentAttention>),
}

impl SelfAttention {
    /// Its matrices that modules of the checkpoint are, in the order in which they are used.
    pub fn linears(&self) -> Vec<&Linear> {
        match self {
            Self::Grouped(attention) => attention.linears().to_vec(),
            Self::Latent(attention) => attention.linears(),
        }
    }

    /// Angles of its positions, if it rotates.
    pub fn rope(&self) -> Option<&RopeTable> {
        match self {
            Self::Grouped(attention) => attention.spec().rope.as_ref().map(|(table, _)| &**table),
            Self::Latent(attention) => Some(&*attention.spec().rope.0),
        }
    }

    /// Memory of what a layer keeps of `slots` sequences of at most `capacity` tokens.
    ///
    /// # Errors
    /// Memory that is exhausted, a layer that exceeds a binding.
    pub fn alloc_cache(&self, gpu: &Gpu, slots: u32, capacity: u32, f16: bool) -> Result<KvView, OpError> {
        match self {
            Self::Grouped(attention) => {
                let spec = attention.spec();
                let (num_kv_heads, head_dim) = (spec.num_kv_heads, spec.head_dim);
                KvView::alloc(gpu, KvSize { slots, num_kv_heads, capacity, head_dim, f16 })
            }
            Self::Latent(attention) => attention.alloc_cache(gpu, slots, capacity, f16),
        }
    }

    /// `residual + alpha · attention(norm(x))`: x `[T, C]` → `[T, C]`.
    pub fn forward(
        &self,
        frame: &mut Frame,
        x: &Tensor,
        batch: &Batch,
        cache: &KvView,
        fused: Residual<'_>,
    ) -> Result<Tensor, OpError> {
        match self {
            Self::Grouped(attention) => attention.forward(frame, x, batch, cache, fused),
            Self::Latent(attention) => attention.forward(frame, x, batch, cache, fused),
        }
    }

    /// `attention(norm(x))` of the residual stream x, and the value of that: `[T, C]`, `[T, C]`.
    pub fn forward_stream(
        &self,
        frame: &mut Frame,
        stream: Stream<'_>,
        norm: Option<&Norm>,
        batch: &Batch,
        cache: &KvView,
    ) -> Result<(Tensor, Tensor), OpError> {
        match self {
            Self::Grouped(attention) => attention.forward_stream(frame, stream, norm, batch, cache),
            Self::Latent(attention) => attention.forward_stream(frame, stream, norm, batch, cache),
        }
    }
}

impl From<Attention> for SelfAttention {
    fn from(attention: Attention) -> Self {
        Self::Grouped(attention)
    }
}

impl From<LatentAttention> for SelfAttention {
    fn from(attention: LatentAttention) -> Self {
        Self::Latent(Box::new(attention))
    }
}

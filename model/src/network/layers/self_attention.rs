//! The attention of a layer.

use girih_ops::{Batch, Frame, Gpu, KvSize, KvView, OpError, RopeTable, Tensor};

use super::{Attention, LatentAttention, LayerCache, LightningAttention, Linear, Norm, Residual, Stream};

/// What mixes the tokens of a sequence.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a few dozen for a model, all of one kind")]
pub enum SelfAttention {
    /// Keys and values of each key head.
    Grouped(Attention),
    /// One latent for all heads.
    Latent(Box<LatentAttention>),
    /// A state for each head.
    Lightning(Box<LightningAttention>),
}

impl SelfAttention {
    /// Whether what is kept of a sequence is a state, which only goes forward.
    pub fn is_recurrent(&self) -> bool {
        matches!(self, Self::Lightning(_))
    }

    /// Its matrices that modules of the checkpoint are, in the order in which they are used.
    pub fn linears(&self) -> Vec<&Linear> {
        match self {
            Self::Grouped(attention) => attention.linears().to_vec(),
            Self::Latent(attention) => attention.linears(),
            Self::Lightning(attention) => attention.linears().to_vec(),
        }
    }

    /// Angles of its positions, if it rotates.
    pub fn rope(&self) -> Option<&RopeTable> {
        match self {
            Self::Grouped(attention) => attention.spec().rope.as_ref().map(|(table, _)| &**table),
            Self::Latent(attention) => Some(&*attention.spec().rope.0),
            Self::Lightning(_) => None,
        }
    }

    /// Memory of what a layer keeps of `slots` sequences of at most `capacity` tokens.
    ///
    /// # Errors
    /// Memory that is exhausted, a layer that exceeds a binding.
    pub fn alloc_cache(
        &self,
        gpu: &Gpu,
        slots: u32,
        capacity: u32,
        f16: bool,
    ) -> Result<LayerCache, OpError> {
        match self {
            Self::Grouped(attention) => {
                let spec = attention.spec();
                let (num_kv_heads, head_dim) = (spec.num_kv_heads, spec.head_dim);
                let size = KvSize { slots, num_kv_heads, capacity, head_dim, f16 };
                KvView::alloc(gpu, size).map(LayerCache::Keys)
            }
            Self::Latent(attention) => attention.alloc_cache(gpu, slots, capacity, f16).map(LayerCache::Keys),
            Self::Lightning(attention) => attention.alloc_states(gpu, slots).map(LayerCache::States),
        }
    }

    /// `residual + alpha · attention(norm(x))`: x `[T, C]` → `[T, C]`.
    pub fn forward(
        &self,
        frame: &mut Frame,
        x: &Tensor,
        batch: &Batch,
        cache: &LayerCache,
        fused: Residual<'_>,
    ) -> Result<Tensor, OpError> {
        match self {
            Self::Grouped(attention) => attention.forward(frame, x, batch, cache.keys()?, fused),
            Self::Latent(attention) => attention.forward(frame, x, batch, cache, fused),
            Self::Lightning(attention) => attention.forward(frame, x, batch, cache, fused),
        }
    }

    /// `attention(norm(x))` of the residual stream x, and the value of that: `[T, C]`, `[T, C]`.
    pub fn forward_stream(
        &self,
        frame: &mut Frame,
        stream: Stream<'_>,
        norm: Option<&Norm>,
        batch: &Batch,
        cache: &LayerCache,
    ) -> Result<(Tensor, Tensor), OpError> {
        match self {
            Self::Grouped(attention) => attention.forward_stream(frame, stream, norm, batch, cache.keys()?),
            Self::Latent(_) | Self::Lightning(_) => {
                let x = stream.value(frame)?;
                let y =
                    self.forward(frame, &x, batch, cache, Residual { norm, alpha: 1.0, residual: None })?;
                Ok((x, y))
            }
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

impl From<LightningAttention> for SelfAttention {
    fn from(attention: LightningAttention) -> Self {
        Self::Lightning(Box::new(attention))
    }
}

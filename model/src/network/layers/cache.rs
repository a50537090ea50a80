//! Keys and values of all layers.

use girih_ops::{Gpu, KvView, OpError};

use super::Block;

/// Keys and values of `slots` sequences of at most `capacity` tokens, for every layer.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<KvView>,
    capacity: u32,
    slots: u32,
}

impl Cache {
    /// Memory for the layers of a model.
    ///
    /// # Errors
    /// Memory that is exhausted, a layer that exceeds a binding.
    pub fn alloc(gpu: &Gpu, blocks: &[Block], slots: u32, capacity: u32, f16: bool) -> Result<Self, OpError> {
        let layer = |block: &Block| block.attention().alloc_cache(gpu, slots, capacity, f16);
        Ok(Self { layers: blocks.iter().map(layer).collect::<Result<_, _>>()?, capacity, slots })
    }

    /// Keys and values of layer `i`.
    pub fn layer(&self, i: usize) -> &KvView {
        &self.layers[i]
    }

    /// Tokens that a sequence can have.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Sequences.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Bytes of GPU memory.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(KvView::bytes).sum()
    }
}

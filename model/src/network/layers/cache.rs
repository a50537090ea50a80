//! Keys and values of all layers.

use girih_ops::{Gpu, KvView, OpError, Tensor};

use super::Block;

/// What a layer keeps of sequences.
#[derive(Clone, Debug)]
pub enum LayerCache {
    /// Keys and values of every token, or latents.
    Keys(KvView),
    /// A state of each head `[slots, H, D, D]`.
    States(Tensor),
}

impl LayerCache {
    /// Keys and values.
    ///
    /// # Errors
    /// A layer with states.
    pub fn keys(&self) -> Result<&KvView, OpError> {
        match self {
            Self::Keys(view) => Ok(view),
            Self::States(_) => Err(other("keys and values", "states")),
        }
    }

    /// States.
    ///
    /// # Errors
    /// A layer with keys and values.
    pub fn states(&self) -> Result<&Tensor, OpError> {
        match self {
            Self::States(states) => Ok(states),
            Self::Keys(_) => Err(other("states", "keys and values")),
        }
    }

    /// Bytes of GPU memory.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Keys(view) => view.bytes(),
            Self::States(states) => states.buffer().size(),
        }
    }
}

fn other(want: &str, got: &str) -> OpError {
    let want = format!("1: {want}, not {got}");
    OpError::Value { op: "attention", what: "caches of this kind of a layer", got: 0.0, want }
}

/// Keys and values of `slots` sequences of at most `capacity` tokens, for every layer.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<LayerCache>,
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

    /// What layer `i` keeps.
    pub fn layer(&self, i: usize) -> &LayerCache {
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
        self.layers.iter().map(LayerCache::bytes).sum()
    }
}

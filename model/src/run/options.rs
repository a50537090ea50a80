//! How a checkpoint is loaded, and a session opened on it.

use crate::checkpoint::weights::WeightPolicy;

pub use crate::network::experts::{Eviction, ExpertMemory, Prefetch};

/// Context length used where nothing else is asked for; the cache is sized by it.
pub const DEFAULT_CONTEXT: u32 = 4096;

/// Tokens that one submission of a prefill handles at most: bounds the memory of intermediate results and the
/// time for which a renderer on the same device waits.
pub(crate) const PREFILL_TOKENS: usize = 512;

/// How a cache is made.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// Tokens that a sequence can have; the model's context length if `None`.
    pub context: Option<u32>,
    /// Sequences that can be cached side by side.
    pub slots: u32,
    /// Keys and values as f16 instead of f32.
    pub f16_cache: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { context: None, slots: 1, f16_cache: false }
    }
}

/// How to load a checkpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Tokens that a sequence can have; the smaller of the model's own and [`DEFAULT_CONTEXT`] if `None`.
    pub context: Option<u32>,
    /// How weights are stored on the GPU; as in the checkpoint by default.
    pub weights: WeightPolicy,
    /// How many experts of a mixture may be on the GPU; the others are read from the checkpoint when they are chosen. All of
    /// them if `None`.
    pub experts: Option<ExpertMemory>,
    /// The session that will be opened on the model: where the device is known not to have the memory for it, nothing is
    /// loaded, and the kernels that it needs are tested. If `None`, memory is asked for weights and intermediate results
    /// only, and the kernels are those of a session with defaults.
    pub session: Option<SessionOptions>,
}

//! What is wrong with a checkpoint, a text or a run, with what was found and what was wanted.

mod load;
mod run;
mod sample;
mod text;

use girih_ops::{GpuError, KernelError, OpError};

pub use load::{LoadError, MisShaped};
pub use run::RunError;
pub use sample::SampleError;
pub use text::TextError;

/// What a model needs, where the device has no more memory to give.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "the device's memory is exhausted: {:.1} MB of weights and {:.1} MB of keys and values for {context} tokens \
     are needed, besides intermediate results ({message}); a lower --context or --weights f16 need less",
    *weights as f64 / 1e6,
    *cache as f64 / 1e6
)]
pub struct OutOfMemory {
    /// Bytes of weights.
    pub weights: u64,
    /// Bytes of keys and values.
    pub cache: u64,
    /// Tokens of the cache.
    pub context: u32,
    /// What the device said.
    pub message: String,
}

impl OutOfMemory {
    /// The message of the device if it has said that there is no memory.
    pub(crate) fn said(error: &OpError) -> Option<String> {
        match error {
            OpError::Gpu(e) | OpError::Kernel(KernelError::Gpu(e)) => Self::gpu(e),
            _ => None,
        }
    }

    pub(crate) fn gpu(error: &GpuError) -> Option<String> {
        matches!(error, GpuError::OutOfMemory { .. } | GpuError::Exhausted { .. }).then(|| error.to_string())
    }
}

/// The failure of the device behind the error of an operation.
fn device(error: &OpError) -> Option<&GpuError> {
    match error {
        OpError::Gpu(error) | OpError::Kernel(KernelError::Gpu(error)) => Some(error),
        _ => None,
    }
}

/// Characters of a value that an error shows.
pub(crate) const EXCERPT: usize = 200;

/// The beginning of a text from a file, as errors show it: a name may be as long as its file.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

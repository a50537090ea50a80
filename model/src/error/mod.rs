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
    "not enough memory: the model needs {}, of it {} of weights, {} of keys and values for {context} tokens and {} of \
     intermediate results; {message}; {advice}",
    size(weights.saturating_add(*cache).saturating_add(*scratch)), size(*weights), size(*cache), size(*scratch)
)]
pub struct OutOfMemory {
    /// Bytes of weights.
    pub weights: u64,
    /// Bytes of keys and values.
    pub cache: u64,
    /// Bytes of intermediate results, about.
    pub scratch: u64,
    /// Tokens of the cache.
    pub context: u32,
    /// What the device said, or what is known of it.
    pub message: String,
    /// What fits, or needs less.
    pub advice: String,
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

/// `16.4 GB`, `0.3 MB`
pub(crate) fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    if bytes >= 1e9 { format!("{:.1} GB", bytes / 1e9) } else { format!("{:.1} MB", bytes / 1e6) }
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

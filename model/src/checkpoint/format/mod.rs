//! File formats of checkpoints.

use std::sync::Arc;

use crate::LoadError;
use crate::checkpoint::source::ByteSource;

pub mod gguf;
pub mod json;
pub mod mistral;
mod paired;
pub mod safetensors;

/// What formats must know of the architectures to show files as a checkpoint folder.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// What GGUF files hold.
    pub gguf: &'static [gguf::Architecture],
    /// Reads the heads from a `config.json`.
    pub heads: fn(&[u8]) -> Result<mistral::Heads, LoadError>,
}

/// A checkpoint folder whatever the source holds: GGUF files and Mistral's own are shown as the folder that
/// transformers would have written.
///
/// # Errors
/// Those of [`gguf::checkpoint`] and [`mistral::checkpoint`].
pub async fn checkpoint(
    source: Arc<dyn ByteSource>,
    known: &Known,
) -> Result<Arc<dyn ByteSource>, LoadError> {
    mistral::checkpoint(gguf::checkpoint(source, known.gguf).await?, known.heads).await
}

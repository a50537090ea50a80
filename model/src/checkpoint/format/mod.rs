//! File formats of checkpoints.

use std::sync::Arc;

use crate::LoadError;
use crate::checkpoint::source::ByteSource;

pub mod gguf;
pub mod json;
pub mod mistral;
mod paired;
pub mod safetensors;

/// A checkpoint folder whatever the source holds: GGUF files and Mistral's own are shown as the folder that
/// transformers would have written.
///
/// # Errors
/// Those of [`gguf::checkpoint`] and [`mistral::checkpoint`].
pub async fn checkpoint(source: Arc<dyn ByteSource>) -> Result<Arc<dyn ByteSource>, LoadError> {
    mistral::checkpoint(gguf::checkpoint(source).await?).await
}

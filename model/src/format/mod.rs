//! File formats of checkpoints.

pub mod gguf;
pub mod json;
pub mod safetensors;

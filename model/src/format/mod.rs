//! File formats of checkpoints.

pub mod json;
pub mod safetensors;

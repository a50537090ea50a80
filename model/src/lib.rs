//! Language models on the GPU: checkpoints, architectures, cache, generation, text.

pub mod chat;
pub mod config;
mod error;
pub mod format;
pub mod rope;
pub mod sampler;
pub mod source;
#[cfg(test)]
mod testing;
pub mod tokenizer;
pub mod weights;

pub use config::Config;
pub use error::{LoadError, MisShaped, TextError};
pub use source::{ByteSource, MemorySource};
pub use weights::{Rows, WeightPolicy, Weights};

//! Language models on the GPU: checkpoints, architectures, cache, generation, text.
//!
//! Data goes one way: prompt → [`Tokenizer`] → ids → embedding → the blocks of an [`arch`]itecture → logits →
//! [`Sampler`] → id → text. [`Model::load`] reads a checkpoint from any [`source::ByteSource`]; a [`Session`] is a
//! model with a cache; [`generate()`] is the token loop.

pub mod arch;
pub mod chat;
pub mod config;
pub mod error;
pub mod eval;
pub mod format;
pub mod generate;
pub mod generation_config;
pub mod layers;
pub mod model;
pub mod pooling;
pub mod rope;
pub mod sampler;
pub mod session;
pub mod source;
pub mod synthetic;
#[cfg(test)]
mod testing;
pub mod tokenizer;
pub mod weights;

pub use chat::{ChatTemplates, Conversation};
pub use config::Config;
pub use error::{LoadError, MisShaped, OutOfMemory, RunError, TextError};
pub use eval::{EvalOptions, Perplexity, perplexity};
pub use generate::{Finish, GenerateOptions, Generated, generate};
pub use generation_config::GenerationConfig;
pub use model::{LoadOptions, Model, Progress, load_config};
pub use sampler::{Sampler, Sampling};
pub use session::{Input, Rows, Session, SessionOptions, Tail};
pub use source::{ByteSource, MemorySource};
pub use tokenizer::Tokenizer;

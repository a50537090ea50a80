//! Language models on the GPU: checkpoints, architectures, cache, generation, text.
//!
//! Data goes one way: prompt → [`Tokenizer`] → ids → embedding → the blocks of an [`arch`]itecture → logits →
//! [`Sampler`] → id → text. [`Model::load`] reads a checkpoint from any [`source::ByteSource`]; a [`Session`] is a
//! model with a cache; [`generate()`] is the token loop.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use std::sync::Arc;
//!
//! use girih_model::source::DirSource;
//! use girih_model::{GenerateOptions, LoadOptions, Model, Sampling, Session, SessionOptions, generate};
//! use girih_ops::{Gpu, Options};
//!
//! async fn tell() -> Result<(), Box<dyn std::error::Error>> {
//!     let gpu = Gpu::new(Options::default()).await?;
//!     let source = Arc::new(DirSource::new("assets/fable-5m"));
//!     let model = Model::load(&gpu, source, LoadOptions::default(), |_| ()).await?;
//!     let mut session = Session::new(&model, SessionOptions::default())?;
//!     let prompt = model.tokenizer()?.encode("Once upon a time", true)?;
//!     let options = GenerateOptions {
//!         max_tokens: 60,
//!         sampling: Sampling { temperature: 0.7, top_p: 0.95, ..Sampling::default() },
//!         stop: Vec::new(),
//!         stop_ids: model.stop_ids(),
//!         continues: true,
//!         slot: 0,
//!     };
//!     let told = generate(&mut session, Some(model.tokenizer()?), &prompt, &options, |text| {
//!         print!("{text}"); // each piece when it is certain
//!         ControlFlow::Continue(())
//!     })
//!     .await?;
//!     println!("\n{} tokens, {:.1} s", told.token_ids.len(), told.decode_seconds);
//!     Ok(())
//! }
//! ```

pub mod arch;
pub mod chat;
pub mod config;
pub mod embed;
pub mod embedding_config;
pub mod error;
pub mod eval;
pub mod format;
pub mod generate;
pub mod generation_config;
pub mod layers;
pub mod memory;
pub mod model;
mod pieces;
pub mod pooling;
pub mod quantized;
pub mod rope;
pub mod sampler;
pub mod session;
pub mod source;
pub mod synthetic;
#[cfg(test)]
mod testing;
pub mod tokenizer;
mod vocabulary;
pub mod weights;

pub use chat::{CHATML, ChatTemplates, Conversation};
pub use config::Config;
pub use embedding_config::{EmbeddingConfig, Prompt, Prompts};
pub use error::{LoadError, MisShaped, OutOfMemory, RunError, TextError};
pub use eval::{Comparison, EvalOptions, Perplexity, compare, perplexity};
pub use generate::{Finish, GenerateOptions, Generated, generate};
pub use generation_config::GenerationConfig;
pub use model::{LoadOptions, Model, Progress, load_config};
pub use sampler::{Rules, Sampler, Sampling};
pub use session::{Canceller, Input, Rows, Session, SessionOptions, Tail};
pub use source::{ByteSource, MemorySource};
pub use tokenizer::Tokenizer;
pub use weights::{WeightPolicy, weight_format};

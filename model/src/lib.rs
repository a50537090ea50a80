//! Language models on the GPU: checkpoints, architectures, cache, generation, text.
//!
//! Data goes one way: prompt → [`Tokenizer`] → ids → embedding → the blocks of an [`architecture`](network::arch) → logits →
//! [`Sampler`] → id → text. [`Model::load`] reads a checkpoint from any [`ByteSource`]; a [`Session`] is a
//! model with a cache; [`generate()`] is the token loop.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use std::sync::Arc;
//!
//! use girih_model::checkpoint::source::DirSource;
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

pub mod checkpoint;
pub mod error;
pub mod network;
pub mod run;
#[cfg(test)]
mod testing;
pub mod text;

pub use checkpoint::source::{ByteSource, MemorySource};
pub use checkpoint::weights::{WeightPolicy, weight_format};
pub use error::{LoadError, MisShaped, OutOfMemory, RunError, TextError};
pub use network::config::Config;
pub use network::experts::{ExpertCache, ExpertCounts};
pub use run::embedding_config::{EmbeddingConfig, Prompt, Prompts};
pub use run::eval::{Comparison, EvalOptions, Perplexity, compare, perplexity};
pub use run::generate::{Finish, GenerateOptions, Generated, generate};
pub use run::generation_config::GenerationConfig;
pub use run::locality::{CacheRates, Locality};
pub use run::model::{Model, Progress, load_config};
pub use run::options::{Eviction, ExpertMemory, LoadOptions, Prefetch, SessionOptions};
pub use run::passes::Passes;
pub use run::routing::{LayerRouting, Routing};
pub use run::sampler::{Rules, Sampler, Sampling};
pub use run::session::{Canceller, Input, Rows, Session, Tail};
pub use run::tune::tunable;
pub use text::chat::{CHATML, ChatTemplates, Conversation};
pub use text::tokenizer::Tokenizer;

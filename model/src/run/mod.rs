//! Loaded models at work: sessions, what they need of a device, generation, evaluation, embeddings.

pub mod calibrate;
pub mod embed;
pub mod embedding_config;
pub mod eval;
pub mod generate;
pub mod generation_config;
pub mod locality;
pub mod memory;
pub mod model;
mod needs;
pub mod options;
pub mod passes;
pub mod pooling;
pub mod routing;
pub mod sampler;
pub mod session;
pub mod tune;

//! What a model computes: configurations, layers, and the architectures that put them together.

pub mod arch;
pub mod config;
pub mod experts;
pub mod layers;
pub mod rope;

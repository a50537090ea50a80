//! Quantised weights: formats as data, their packing, their definition in f64.
//!
//! A [`Format`] says what a code stands for, how many channels share a scale, of which type scales and zero points
//! are and whether a second level of scales lies above them. Every published layout that girih reads (GGUF, GPTQ,
//! AWQ, compressed-tensors, MXFP4, NVFP4, FP8) is one such value, and so are others, like that of QoQ; one family of
//! kernels serves them all.

mod activation;
pub mod dictionary;
pub mod float;
mod format;
pub mod hadamard;
pub mod kronecker;
mod pack;
mod rtn;
mod weight_format;

pub use activation::QuantActivation;
pub use format::{Code, Format, FormatError, Scale, Super, SuperScale, Zero};
pub use hadamard::HadamardPlan;
pub use pack::{Row, pack_row, unpack_row};
pub use rtn::quantize_row;
pub use weight_format::WeightFormat;

//! Numerics of quantising language models, on the CPU.
//!
//! [`quantize_linear`] takes the matrices that share an input (q, k, v, or gate and up), statistics of that input
//! ([`InputStats`]) and a [`Scheme`], and returns codes and scales in the layout that kernels read, together with what
//! the input must go through before the product: `y = quant(mix(input_scale · x)) · Ŵᵀ`.
//!
//! ```
//! use girih_quantize::{Module, quantize_linear};
//!
//! let weight: Vec<f32> = (0..4 * 64).map(|i| (i as f32 * 0.37).sin()).collect();
//! let modules = [Module { name: "proj", n: 4, weight: &weight }];
//! let quantized = quantize_linear(&"w4a16-g32".parse()?, &modules, None, 0)?;
//! assert!(quantized.modules[0].report.weight_sqnr_db > 18.0);
//! # Ok::<(), girih_quantize::QuantizeError>(())
//! ```

mod dense;
mod error;
mod flat;
mod gptq;
mod grid;
mod linear;
mod measure;
mod parallel;
mod plan;
mod random;
mod scheme;
mod search;
mod stats;
#[cfg(test)]
mod tables;
mod ternary;
mod transform;

pub use error::QuantizeError;
pub use linear::{LayerReport, Module, QuantizedLinear, QuantizedModule, quantize_linear};
pub use plan::InputPlan;
pub use scheme::{Scheme, SchemeInfo, schemes};
pub use stats::InputStats;
pub use ternary::TernaryMatrix;
pub use transform::HostMix;

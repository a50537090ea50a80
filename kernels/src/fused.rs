//! What kernels of several families do before their own work.

use crate::buffer::Buffer;

/// Normalisation of x over its channels.
#[derive(Clone, Copy, Debug)]
pub enum Norm<'a> {
    /// None.
    None,
    /// `x / sqrt(mean(x²) + eps) · weight`
    Rms {
        /// `[K]`
        weight: &'a Buffer,
        /// Added to the mean square.
        eps: f32,
    },
    /// `(x - mean(x)) / sqrt(var(x) + eps) · weight + bias`
    Layer {
        /// `[K]`
        weight: &'a Buffer,
        /// `[K]`
        bias: Option<&'a Buffer>,
        /// Added to the variance.
        eps: f32,
    },
}

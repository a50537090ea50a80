//! What is wrong with a call of an operation.

use girih_kernels::{GpuError, KernelError};

use crate::DType;

/// An operation cannot be recorded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpError {
    /// A tensor has another shape than the operation needs.
    #[error("{op}: {tensor} has shape {got:?}, must be {want}")]
    Shape {
        /// Operation.
        op: &'static str,
        /// Argument.
        tensor: &'static str,
        /// Shape found.
        got: Vec<u32>,
        /// Shape wanted.
        want: String,
    },
    /// A tensor has another element type than the operation needs.
    #[error("{op}: {tensor} is {got:?}, must be {want:?}")]
    DType {
        /// Operation.
        op: &'static str,
        /// Argument.
        tensor: &'static str,
        /// Type found.
        got: DType,
        /// Type wanted.
        want: DType,
    },
    /// A number is out of the operation's domain.
    #[error("{op}: {what} is {got}, must be {want}")]
    Value {
        /// Operation.
        op: &'static str,
        /// Quantity.
        what: &'static str,
        /// Value found.
        got: f64,
        /// Values allowed.
        want: String,
    },
    /// A combination that no kernel serves.
    #[error("{op}: {what} is not supported")]
    Unsupported {
        /// Operation.
        op: &'static str,
        /// What was asked for.
        what: String,
    },
    /// A weight format that does not exist.
    #[error(transparent)]
    Format(#[from] girih_kernels::quant::FormatError),
    /// A ternary matrix that does not decode.
    #[error(transparent)]
    Dictionary(#[from] girih_kernels::quant::dictionary::DictionaryError),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The device failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

//! [`QuantizeError`].

use girih_kernels::quant::FormatError;

/// What can go wrong when a matrix is quantised.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum QuantizeError {
    /// No such scheme.
    #[error("quantisation scheme `{got}`: {want}")]
    Scheme {
        /// What was found.
        got: String,
        /// What it must be.
        want: String,
    },
    /// No matrices, or matrices that do not share an input.
    #[error("matrix `{name}`: {want}, found {got}")]
    Shape {
        /// Matrix.
        name: String,
        /// What it must be.
        want: String,
        /// What was found.
        got: String,
    },
    /// A weight or a statistic is infinite or NaN.
    #[error("matrix `{name}`: {what} holds a value that is not finite")]
    NotFinite {
        /// Matrix.
        name: String,
        /// Where the value stands.
        what: &'static str,
    },
    /// The scheme needs statistics of the input that were not given.
    #[error("scheme `{scheme}` needs {want} of the inputs; found {got}")]
    Calibration {
        /// Scheme.
        scheme: String,
        /// What it needs.
        want: &'static str,
        /// What there is.
        got: &'static str,
    },
    /// A matrix that must be inverted or factored is singular.
    #[error("{what} of {n} channels is singular even after damping")]
    Singular {
        /// Matrix.
        what: &'static str,
        /// Its size.
        n: usize,
    },
    /// A weight format that does not exist.
    #[error(transparent)]
    Format(#[from] FormatError),
}

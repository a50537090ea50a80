//! Why a token cannot be sampled.

/// A token cannot be sampled.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// A parameter is out of range.
    #[error("{field} is {got}, must be {want}")]
    Parameter {
        /// Parameter.
        field: &'static str,
        /// Value found.
        got: f64,
        /// Values allowed.
        want: &'static str,
    },
    /// There is nothing to choose from.
    #[error("no token has a logit above -infinity, must be at least 1")]
    NoTokens,
    /// A logit is NaN or +infinity.
    #[error(
        "the logit of token {token} is {got}, must be a number below infinity: keys or values are beyond f16 (if the cache \
         is f16, try f32), or the weights or the device are broken"
    )]
    NotFinite {
        /// Token.
        token: u32,
        /// Value found.
        got: f32,
    },
    /// Candidates without their tokens.
    #[error("{values} candidate logits come with {ids} token ids, must be as many")]
    Candidates {
        /// Number of logits.
        values: usize,
        /// Number of ids.
        ids: usize,
    },
}

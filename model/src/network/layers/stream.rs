//! The residual stream between two sub-layers.

use girih_ops::{Frame, OpError, Tensor};

use super::Norm;

/// The residual stream `[T, C]`: its value, or a sum that the next product may take along.
#[derive(Clone, Debug)]
pub enum Stream<'a> {
    /// The value.
    Value(Tensor),
    /// `residual + norm(x)`: a block that normalises what it returns has ended.
    NormAdd {
        /// The stream before the block.
        residual: Tensor,
        /// Norm behind the block.
        norm: &'a Norm,
        /// What the block has returned.
        x: Tensor,
    },
}

impl Stream<'_> {
    /// The value, computed where it is still to be.
    pub fn value(self, frame: &mut Frame) -> Result<Tensor, OpError> {
        match self {
            Self::Value(x) => Ok(x),
            Self::NormAdd { residual, norm, x } => norm.forward_add(frame, &x, &residual),
        }
    }
}

//! A weight matrix with its bias.

use girih_ops::{Frame, Matrix, OpError, Tensor};

use super::Scope;
use crate::error::LoadError;
use crate::weights::Rows;

/// `y = x · Wᵀ + b`, with what the block fuses before and after it.
#[derive(Clone, Debug)]
pub struct Linear {
    matrix: Matrix,
    bias: Option<Tensor>,
}

/// The modules of a checkpoint that make one matrix: their rows, and the elements of their biases, in this order.
#[derive(Clone, Copy, Debug)]
pub enum Modules<'a> {
    /// Below each other: fused Q, K, V; or a single one.
    Concat(&'a [&'a str]),
    /// Alternately: gate and up.
    Interleave(&'a str, &'a str),
    /// One module that holds gate and up below each other, read alternately.
    InterleaveHalves(&'a str),
}

impl Modules<'_> {
    /// Calls `load` with the rows of `suffix` (`weight` or `bias`) of these modules.
    async fn with<T>(self, suffix: &str, load: impl AsyncFnOnce(Rows<'_>) -> T) -> T {
        let full = |name: &str| format!("{name}.{suffix}");
        match self {
            Self::Concat(names) => {
                let names: Vec<String> = names.iter().map(|n| full(n)).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                load(Rows::Concat(&names)).await
            }
            Self::Interleave(a, b) => load(Rows::Interleave(&full(a), &full(b))).await,
            Self::InterleaveHalves(a) => load(Rows::ConcatHalvesInterleaved(&full(a))).await,
        }
    }
}

impl Linear {
    /// Loads a matrix `[n, k]`, with the bias of every module if the configuration says that there is one.
    pub async fn load(
        w: &Scope,
        modules: Modules<'_>,
        [n, k]: [u32; 2],
        bias: bool,
    ) -> Result<Self, LoadError> {
        let (weights, gpu) = (w.weights(), w.gpu());
        let matrix = modules.with("weight", async |rows| weights.matrix(gpu, rows, n, k).await).await?;
        let bias = if bias {
            Some(modules.with("bias", async |rows| weights.vector(gpu, rows, n).await).await?)
        } else {
            None
        };
        Ok(Self { matrix, bias })
    }

    /// A matrix that is already on the GPU.
    pub fn from_matrix(matrix: Matrix) -> Self {
        Self { matrix, bias: None }
    }

    /// The weights.
    pub fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    /// x `[T, K]` → `[T, N]`; `opts` says what is fused (its bias is this layer's).
    pub fn forward<'a>(
        &'a self,
        frame: &mut Frame,
        x: &Tensor,
        opts: girih_ops::Linear<'a>,
    ) -> Result<Tensor, OpError> {
        girih_ops::linear(frame, x, &self.matrix, &girih_ops::Linear { bias: self.bias.as_ref(), ..opts })
    }
}

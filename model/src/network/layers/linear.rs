//! A weight matrix with its bias.

use std::sync::Arc;

use girih_ops::{Frame, Matrix, Norm, NormAdd, OpError, Tensor, layer_norm, rms_norm};

use super::{Scope, Stream};
use crate::checkpoint::weights::{HeadRows, TensorRows};
use crate::error::LoadError;

/// `y = x · Wᵀ + b`, with what the block fuses before and after it.
#[derive(Clone, Debug)]
pub struct Linear {
    matrix: Matrix,
    bias: Option<Tensor>,
    /// Full names of its modules in the checkpoint; none if it was made of something else.
    modules: Arc<[String]>,
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
    /// The same rows of each head of one module.
    Heads(&'a HeadRows<'a>),
}

impl Modules<'_> {
    /// Names of the modules, relative to the scope.
    fn names(&self) -> Vec<&str> {
        match self {
            Self::Concat(names) => names.to_vec(),
            Self::Interleave(a, b) => vec![a, b],
            Self::InterleaveHalves(a) => vec![a],
            Self::Heads(heads) => vec![heads.name],
        }
    }

    /// Calls `load` with the rows of `suffix` (`weight` or `bias`) of these modules.
    async fn with<T>(self, suffix: &str, load: impl AsyncFnOnce(TensorRows<'_>) -> T) -> T {
        let full = |name: &str| format!("{name}.{suffix}");
        match self {
            Self::Concat(names) => {
                let names: Vec<String> = names.iter().map(|n| full(n)).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                load(TensorRows::Concat(&names)).await
            }
            Self::Interleave(a, b) => load(TensorRows::Interleave(&full(a), &full(b))).await,
            Self::InterleaveHalves(a) => load(TensorRows::ConcatHalvesInterleaved(&full(a))).await,
            Self::Heads(heads) => {
                let name = full(heads.name);
                load(TensorRows::Heads(HeadRows { name: &name, rows: heads.rows.clone(), ..*heads })).await
            }
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
        let bias =
            if bias { Some(modules.with("bias", async |rows| w.vector(rows, n).await).await?) } else { None };
        let modules = modules.names().into_iter().map(|name| weights.full(name)).collect();
        Ok(Self { matrix, bias, modules })
    }

    /// The matrix of a router `[n, k]`, in full whatever the policy of weights says.
    pub async fn load_router(
        w: &Scope,
        module: &str,
        [n, k]: [u32; 2],
        bias: bool,
    ) -> Result<Self, LoadError> {
        let matrix = w.weights().router(w.gpu(), &format!("{module}.weight"), [n, k]).await?;
        let bias = if bias { Some(w.vector(format!("{module}.bias").as_str(), n).await?) } else { None };
        Ok(Self { matrix, bias, modules: Arc::new([w.weights().full(module)]) })
    }

    /// A matrix that is already on the GPU.
    pub fn from_matrix(matrix: Matrix) -> Self {
        Self { matrix, bias: None, modules: Arc::new([]) }
    }

    /// The weights.
    pub fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    /// The bias.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// Full names of the modules of the checkpoint that it is made of; none for a head that is the embedding.
    pub fn modules(&self) -> &[String] {
        &self.modules
    }

    /// x `[T, K]` → `[T, N]`; `opts` says what is fused (its bias is this layer's). What the product is given, the
    /// normalised x, is [noted](Frame::note) under the name of the first module.
    pub fn forward<'a>(
        &'a self,
        frame: &mut Frame,
        x: &Tensor,
        opts: girih_ops::Linear<'a>,
    ) -> Result<Tensor, OpError> {
        let opts = girih_ops::Linear { bias: self.bias.as_ref(), ..opts };
        if let Some(name) = self.modules.first()
            && frame.watches(name)
        {
            let x = match opts.norm {
                None => x.clone(),
                Some(Norm::Rms { weight, eps }) => rms_norm(frame, x, weight, eps)?,
                Some(Norm::Layer { weight, bias, eps }) => layer_norm(frame, x, weight, bias, eps)?,
            };
            frame.note(name, &x);
            return girih_ops::linear(frame, &x, &self.matrix, &girih_ops::Linear { norm: None, ..opts });
        }
        girih_ops::linear(frame, x, &self.matrix, &opts)
    }

    /// The same of the residual stream, whose value comes back with the result.
    pub fn forward_stream<'a>(
        &'a self,
        frame: &mut Frame,
        stream: Stream<'_>,
        opts: girih_ops::Linear<'a>,
    ) -> Result<(Tensor, Tensor), OpError> {
        let is_watched = self.modules.first().is_some_and(|name| frame.watches(name));
        if let Stream::NormAdd { residual, norm: super::Norm::Rms { weight, eps }, x } = &stream
            && !is_watched
        {
            let add = NormAdd { x, weight, eps: *eps, residual };
            let opts = girih_ops::Linear { bias: self.bias.as_ref(), ..opts };
            return girih_ops::rms_norm_add_linear(frame, &add, &self.matrix, &opts);
        }
        let x = stream.value(frame)?;
        let y = self.forward(frame, &x, opts)?;
        Ok((x, y))
    }
}

//! Weights by descending scopes, streamed from the checkpoint to the GPU.
//!
//! Host memory stays bounded: a matrix travels in chunks of rows of at most 32 MB.

mod expert_reader;
mod experts;
#[cfg(test)]
mod experts_tests;
mod heads;
mod layout;
mod rows;
#[cfg(test)]
mod tests;
mod upload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use girih_ops::WeightFormat;
use girih_ops::kernels::quant::{self, Format, QuantActivation};

use crate::LoadError;
use crate::checkpoint::quantized::{QuantModule, Quantization, Stored};
use crate::checkpoint::source::ByteSource;
use crate::checkpoint::table::{TensorInfo, TensorTable};
use crate::checkpoint::tensors::TensorScope;

pub use expert_reader::{ExpertReader, ExpertWords};
pub use experts::ExpertRows;
pub use rows::{HeadRows, TensorRows};

/// How weights are stored on the GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WeightPolicy {
    /// A format to convert linear layers to. `None`: as in the checkpoint (f32 where dense parts of a matrix differ).
    ///
    /// Dense layers are rounded to nearest. As in llama.cpp, embeddings are not quantised (nor a head that is the
    /// embedding), and a head of its own gets 8 bits at least ([`Format::Q8_0`]). Layers that the checkpoint stores
    /// quantised keep their format: another one is an error, except [`WeightFormat::F32`], which decodes them
    /// exactly.
    pub force: Option<WeightFormat>,
    /// How x enters products with quantised layers, in place of what the checkpoint says. Layers that
    /// [`WeightPolicy::force`] quantises count; layers that are dense on the GPU take x as it is.
    pub activations: Option<QuantActivation>,
}

/// The format that users call so: `f32`, `f16`, `bf16`, `int8` ([`Format::Q8_0`]), `int4` ([`Format::Q4_0`]), `mxfp4`,
/// `nvfp4`, or the name of a [`Format`].
///
/// # Errors
/// Another name.
pub fn weight_format(name: &str) -> Result<WeightFormat, quant::FormatError> {
    Ok(match name {
        "f32" => WeightFormat::F32,
        "f16" => WeightFormat::F16,
        "bf16" => WeightFormat::Bf16,
        "int8" => Format::Q8_0.into(),
        "int4" => Format::Q4_0.into(),
        "mxfp4" => Format::MXFP4.into(),
        "nvfp4" => Format::NVFP4.into(),
        other => other.parse::<Format>()?.into(),
    })
}

/// What a load did not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Tensors that were never asked for, without those known to be superfluous.
    pub unused: Vec<String>,
    /// What was loaded in another way than it is stored, and parts of the checkpoint's description that do not count.
    pub notes: Vec<String>,
}

#[derive(Debug)]
struct Loading {
    quantization: Quantization,
    policy: WeightPolicy,
    notes: Mutex<Vec<String>>,
    staged: Mutex<u64>,
    /// Bytes and numbers on the GPU.
    placed: Mutex<(u64, u64)>,
    /// Stacks of quantised experts that are read one by one, by their names.
    stacks: Mutex<HashMap<String, Arc<QuantModule>>>,
}

/// Tensors and quantised modules of a checkpoint, at a place in its tree of names, and how they are to be loaded. Clones
/// and scopes share the record of what was loaded.
#[derive(Clone, Debug)]
pub struct Weights {
    tensors: TensorScope,
    loading: Arc<Loading>,
}

impl Weights {
    /// Reads the headers of a checkpoint.
    ///
    /// # Errors
    /// As [`TensorTable::open`].
    pub async fn open(source: Arc<dyn ByteSource>, policy: WeightPolicy) -> Result<Self, LoadError> {
        let table = TensorTable::open(source.as_ref()).await?;
        Ok(Self::new(source, table, policy))
    }

    /// Weights of tensors that are known already.
    pub fn new(source: Arc<dyn ByteSource>, table: TensorTable, policy: WeightPolicy) -> Self {
        Self::with_quantization(source, table, Quantization::default(), policy)
    }

    /// The same with modules that are stored quantised.
    pub fn with_quantization(
        source: Arc<dyn ByteSource>,
        table: TensorTable,
        quantization: Quantization,
        policy: WeightPolicy,
    ) -> Self {
        let notes = Mutex::new(quantization.notes.clone());
        let (staged, placed, stacks) = (Mutex::default(), Mutex::default(), Mutex::default());
        let loading = Loading { quantization, policy, notes, staged, placed, stacks };
        Self { tensors: TensorScope::new(source, table), loading: Arc::new(loading) }
    }

    /// The tensors of this scope.
    pub fn tensors(&self) -> &TensorScope {
        &self.tensors
    }

    /// The files.
    pub fn source(&self) -> &dyn ByteSource {
        self.tensors.source()
    }

    /// The part of the tree below `name`, which may hold several steps: `model.layers.0`.
    #[must_use]
    pub fn scope(&self, name: impl std::fmt::Display) -> Self {
        Self { tensors: self.tensors.scope(name), loading: self.loading.clone() }
    }

    /// Full name of a tensor of this scope.
    pub fn full(&self, name: &str) -> String {
        self.tensors.full(name)
    }

    /// All tensors of the checkpoint.
    pub fn table(&self) -> &TensorTable {
        self.tensors.table()
    }

    /// How weights are stored.
    pub fn policy(&self) -> WeightPolicy {
        self.loading.policy
    }

    /// Whether there is a tensor, or a module that stores it quantised.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.has_tensor(name) || self.stored(name).is_some()
    }

    /// How the module of a `weight` is stored, if it is quantised.
    pub fn stored(&self, name: &str) -> Option<&Stored> {
        let full = self.full(name);
        self.loading.quantization.modules.get(full.strip_suffix(".weight")?)
    }

    /// The quantised module of a `weight`, if it is quantised. `k`: its columns, where they are known.
    ///
    /// # Errors
    /// As [`Stored::open`].
    pub async fn module(&self, name: &str, k: Option<u32>) -> Result<Option<QuantModule>, LoadError> {
        let Some(stored) = self.stored(name) else { return Ok(None) };
        let full = self.full(name);
        let module = full.strip_suffix(".weight").unwrap_or(&full).to_owned();
        stored.open(&self.tensors.at(module), k).await.map(Some)
    }

    /// Bytes of matrices and tensors on the GPU so far.
    pub fn placed_bytes(&self) -> u64 {
        self.loading.placed.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Numbers in matrices and tensors on the GPU so far, however few bits each has.
    pub fn placed_parameters(&self) -> u64 {
        self.loading.placed.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Counts what went to the GPU.
    pub(crate) fn place(&self, bytes: u64, parameters: u64) {
        let mut placed = self.loading.placed.lock().unwrap_or_else(PoisonError::into_inner);
        placed.0 += bytes;
        placed.1 += parameters;
    }

    fn note(&self, note: String) {
        tracing::warn!("{note}");
        self.loading.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    /// A tensor's description. Does not count as use.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.info(name)
    }

    /// What was not loaded so far by any scope, and what was loaded otherwise than it is stored.
    pub fn report(&self) -> Report {
        let notes = self.loading.notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Report { unused: self.tensors.unused(), notes }
    }

    /// Values of a tensor, converted exactly (f64: rounded) to f32.
    ///
    /// # Errors
    /// As [`TensorScope::f32`].
    pub async fn f32(&self, name: &str, shape: &[u32]) -> Result<Vec<f32>, LoadError> {
        self.tensors.f32(name, shape).await
    }
}

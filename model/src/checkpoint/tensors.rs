//! Tensors of a checkpoint by descending scopes, read to the host.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use girih_ops::WeightFormat;

use crate::checkpoint::source::ByteSource;
use crate::checkpoint::table::{StoredType, TensorInfo, TensorTable};
use crate::{LoadError, MisShaped};

/// Bytes that are compared at a time.
const CHUNK: u64 = 32 << 20;
/// Tensors that published checkpoints carry and models compute themselves.
const KNOWN_UNUSED: [&str; 4] =
    ["rotary_emb.inv_freq", "attn.masked_bias", "attention.masked_bias", "embeddings.position_ids"];

#[derive(Debug)]
struct Files {
    source: Arc<dyn ByteSource>,
    table: TensorTable,
    used: Mutex<BTreeSet<String>>,
}

/// The tensors of a checkpoint and a place in the tree of their names. Clones and scopes share the record of what was
/// used.
#[derive(Clone, Debug)]
pub struct TensorScope {
    files: Arc<Files>,
    scope: String,
}

impl TensorScope {
    /// All tensors of a table, which lie in the files of a source.
    pub fn new(source: Arc<dyn ByteSource>, table: TensorTable) -> Self {
        Self { files: Arc::new(Files { source, table, used: Mutex::default() }), scope: String::new() }
    }

    /// The scope of this full name.
    pub(super) fn at(&self, scope: String) -> Self {
        Self { files: self.files.clone(), scope }
    }

    /// The files.
    pub fn source(&self) -> &dyn ByteSource {
        &*self.files.source
    }

    /// The part of the tree below `name`, which may hold several steps: `model.layers.0`.
    #[must_use]
    pub fn scope(&self, name: impl std::fmt::Display) -> Self {
        self.at(self.full(&name.to_string()))
    }

    /// Full name of a tensor of this scope. A name that begins with `_` goes on with the last step of the scope:
    /// `gate_up_proj_blocks`.
    pub fn full(&self, name: &str) -> String {
        match (self.scope.as_str(), name) {
            (scope, "") => scope.to_owned(),
            ("", name) => name.to_owned(),
            (scope, name) if name.starts_with('_') => format!("{scope}{name}"),
            (scope, name) => format!("{scope}.{name}"),
        }
    }

    /// All tensors of the checkpoint.
    pub fn table(&self) -> &TensorTable {
        &self.files.table
    }

    /// Whether there is a tensor of that very name.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.info(name).is_some()
    }

    /// A tensor's description. Does not count as use.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.files.table.get(&self.full(name))
    }

    /// Names not used so far by any scope, without those known to be superfluous.
    pub fn unused(&self) -> Vec<String> {
        let used = self.files.used.lock().unwrap_or_else(PoisonError::into_inner);
        let superfluous = |name: &str| KNOWN_UNUSED.iter().any(|suffix| name.ends_with(suffix));
        let names = self.files.table.iter().map(|t| &t.name);
        names.filter(|n| !used.contains(*n) && !superfluous(n)).cloned().collect()
    }

    /// Counts a tensor as used although nothing is loaded of it: a tied head that the checkpoint repeats.
    pub fn ignore(&self, name: &str) {
        let mut used = self.files.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.insert(self.full(name));
    }

    /// Whether two tensors are the same, byte for byte.
    ///
    /// # Errors
    /// Those of the source.
    pub async fn same(&self, name: &str, other: &Self, other_name: &str) -> Result<bool, LoadError> {
        let (Some(a), Some(b)) = (self.info(name), other.info(other_name)) else { return Ok(false) };
        if (a.dtype, &a.shape) != (b.dtype, &b.shape) {
            return Ok(false);
        }
        let len = a.range.end - a.range.start;
        let mut at = 0;
        while at < len {
            let end = len.min(at + CHUNK);
            let part = |info: &TensorInfo| info.range.start + at..info.range.start + end;
            let mine = self.files.source.read(&a.file, part(a)).await?;
            if mine != other.files.source.read(&b.file, part(b)).await? {
                return Ok(false);
            }
            at = end;
        }
        Ok(true)
    }

    /// A tensor's description; counts as use.
    ///
    /// # Errors
    /// A tensor that is missing.
    pub(crate) fn find(&self, name: &str) -> Result<&TensorInfo, LoadError> {
        self.ignore(name);
        self.info(name).ok_or_else(|| LoadError::Tensors {
            missing: vec![self.full(name)],
            mis_shaped: Vec::new(),
            unused: self.unused(),
        })
    }

    /// Values of a tensor, converted exactly (f64: rounded) to f32.
    ///
    /// # Errors
    /// A tensor that is missing, of another shape or of a type that is not a plain float; NaN and infinity.
    pub async fn f32(&self, name: &str, shape: &[u32]) -> Result<Vec<f32>, LoadError> {
        let info = self.find(name)?;
        check_shape(info, &shape.iter().map(|&d| u64::from(d)).collect::<Vec<_>>())?;
        float_type(info)?;
        let bytes = self.files.source.read(&info.file, info.range.clone()).await?;
        to_f32(info, 0, &bytes)
    }
}

pub(super) fn mis_shaped(tensor: String, got: Vec<u64>, want: Vec<u64>) -> LoadError {
    let mis_shaped = vec![MisShaped { tensor, got, want }];
    LoadError::Tensors { missing: Vec::new(), mis_shaped, unused: Vec::new() }
}

pub(super) fn check_shape(info: &TensorInfo, want: &[u64]) -> Result<(), LoadError> {
    if info.shape == want {
        return Ok(());
    }
    Err(mis_shaped(info.name.clone(), info.shape.clone(), want.to_vec()))
}

/// The type in which a stored type is kept on the GPU.
pub(super) fn float_type(info: &TensorInfo) -> Result<WeightFormat, LoadError> {
    match info.dtype {
        StoredType::F32 | StoredType::F64 => Ok(WeightFormat::F32),
        StoredType::F16 => Ok(WeightFormat::F16),
        StoredType::BF16 => Ok(WeightFormat::Bf16),
        other => Err(LoadError::StoredType {
            tensor: info.name.clone(),
            got: other.name(),
            want: "F64, F32, F16 or BF16",
        }),
    }
}

/// Converts stored elements, the first of which has the index `first` in its tensor.
pub(super) fn to_f32(info: &TensorInfo, first: u64, bytes: &[u8]) -> Result<Vec<f32>, LoadError> {
    let values: Vec<f32> = match info.dtype {
        StoredType::F32 => bytes.as_chunks().0.iter().map(|&c| f32::from_le_bytes(c)).collect(),
        StoredType::F64 => bytes.as_chunks().0.iter().map(|&c| f64::from_le_bytes(c) as f32).collect(),
        StoredType::F16 => {
            bytes.as_chunks().0.iter().map(|&c| half::f16::from_le_bytes(c).to_f32()).collect()
        }
        StoredType::BF16 => {
            bytes.as_chunks().0.iter().map(|&c| half::bf16::from_le_bytes(c).to_f32()).collect()
        }
        _ => return float_type(info).map(|_| Vec::new()),
    };
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(values),
        Some(i) => {
            Err(LoadError::NotFinite { tensor: info.name.clone(), index: first + i as u64, got: values[i] })
        }
    }
}

//! The tensors of a checkpoint: types, shapes, places in files.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use crate::checkpoint::blocks::GgufType;
use crate::error::cut;
use crate::{LoadError, MisShaped};

macro_rules! stored_types {
    ($($variant:ident $name:literal $bits:literal,)*) => {
        /// Element type in a file.
        #[allow(non_camel_case_types, missing_docs)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum StoredType {
            $($variant,)*
            /// Quantised blocks of a GGUF file; never in safetensors.
            Gguf(GgufType),
        }

        impl StoredType {
            /// All types of safetensors.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Name in the header.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* Self::Gguf(ty) => ty.name() }
            }

            /// Bytes of `elements` elements; `None` where they are no whole number, or too many.
            pub fn bytes_of(self, elements: u64) -> Option<u64> {
                let bits: u64 = match self {
                    $(Self::$variant => $bits,)*
                    Self::Gguf(ty) => return ty.bytes_of(elements),
                };
                elements.checked_mul(bits).filter(|bits| bits % 8 == 0).map(|bits| bits / 8)
            }

            /// Bits of one element; of a block type, rounded up.
            pub fn bits(self) -> u64 {
                match self {
                    $(Self::$variant => $bits,)*
                    Self::Gguf(ty) => (8 * ty.block_bytes()).div_ceil(ty.block_elements()),
                }
            }
        }
    };
}

stored_types! {
    Bool "BOOL" 8, U8 "U8" 8, I8 "I8" 8, F8E4M3 "F8_E4M3" 8, F8E5M2 "F8_E5M2" 8, F8E8M0 "F8_E8M0" 8,
    F4 "F4" 4, F6E2M3 "F6_E2M3" 6, F6E3M2 "F6_E3M2" 6,
    I16 "I16" 16, U16 "U16" 16, F16 "F16" 16, BF16 "BF16" 16,
    I32 "I32" 32, U32 "U32" 32, F32 "F32" 32, I64 "I64" 64, U64 "U64" 64, F64 "F64" 64, C64 "C64" 64,
}

impl StoredType {
    /// The type of a header's name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|t| t.name() == name)
    }
}

/// Plain types of ggml are those of safetensors.
impl From<GgufType> for StoredType {
    fn from(ty: GgufType) -> Self {
        match ty {
            GgufType::F32 => Self::F32,
            GgufType::F16 => Self::F16,
            GgufType::Bf16 => Self::BF16,
            GgufType::F64 => Self::F64,
            GgufType::I8 => Self::I8,
            GgufType::I16 => Self::I16,
            GgufType::I32 => Self::I32,
            GgufType::I64 => Self::I64,
            blocks => Self::Gguf(blocks),
        }
    }
}

/// Where a tensor lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Full name.
    pub name: String,
    /// Element type.
    pub dtype: StoredType,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// File.
    pub file: String,
    /// Bytes in that file.
    pub range: Range<u64>,
}

/// All tensors of a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct TensorTable {
    pub(super) tensors: BTreeMap<String, TensorInfo>,
    used_as_a_whole: bool,
}

impl TensorTable {
    /// Tensors that are known already.
    ///
    /// # Errors
    /// [`LoadError::Duplicate`].
    pub fn new(tensors: Vec<TensorInfo>) -> Result<Self, LoadError> {
        let mut table = Self::default();
        table.add(tensors)?;
        Ok(table)
    }

    /// Adds tensors.
    ///
    /// # Errors
    /// [`LoadError::Duplicate`].
    pub(super) fn add(&mut self, found: Vec<TensorInfo>) -> Result<(), LoadError> {
        for info in found {
            if self.tensors.contains_key(&info.name) {
                return Err(LoadError::Duplicate { file: info.file, tensor: cut(&info.name) });
            }
            self.tensors.insert(info.name.clone(), info);
        }
        Ok(())
    }

    /// The same of a checkpoint with tensors that change the result by being there: none may be left unused.
    #[must_use]
    pub fn used_as_a_whole(self) -> Self {
        Self { used_as_a_whole: true, ..self }
    }

    /// Whether a network must use all tensors.
    pub fn is_used_as_a_whole(&self) -> bool {
        self.used_as_a_whole
    }

    /// A tensor, by full name.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// All tensors, by name.
    pub fn iter(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Bytes of all tensors together.
    pub fn bytes(&self) -> u64 {
        self.iter().map(|t| t.range.end - t.range.start).fold(0, u64::saturating_add)
    }

    /// Checks names and shapes of everything a model needs at once.
    ///
    /// # Errors
    /// [`LoadError::Tensors`] with all that are missing or of another shape and, to help find the reason, those
    /// not asked for.
    pub fn check(&self, wanted: &[(&str, &[u64])]) -> Result<(), LoadError> {
        let (mut missing, mut mis_shaped) = (Vec::new(), Vec::new());
        for &(name, want) in wanted {
            match self.get(name) {
                None => missing.push(name.to_owned()),
                Some(info) if info.shape != want => mis_shaped.push(MisShaped {
                    tensor: name.to_owned(),
                    got: info.shape.clone(),
                    want: want.to_vec(),
                }),
                Some(_) => {}
            }
        }
        if missing.is_empty() && mis_shaped.is_empty() {
            return Ok(());
        }
        let asked: HashSet<&str> = wanted.iter().map(|(name, _)| *name).collect();
        let unused = self.tensors.keys().filter(|name| !asked.contains(name.as_str())).cloned().collect();
        Err(LoadError::Tensors { missing, mis_shaped, unused })
    }
}

//! GGUF, versions 2 and 3, little-endian: metadata, descriptions of tensors, data.
//!
//! ```text
//! "GGUF" | version u32 | tensors u64 | entries u64
//! entry:  key | type u32 | value          string: length u64, UTF-8      array: type u32, count u64, elements
//! tensor: name | rank u32 | dimensions u64, innermost first | type u32 | offset u64 from the data
//! data, at the next multiple of `general.alignment` (32)
//! ```
//!
//! Only the header is read here; tensors stay in the file. [`GgufSource`] shows a file as a checkpoint folder, so
//! everything above reads both alike.

mod config;
mod family;
mod header;
mod source;
mod split;
mod tokenizer;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::ops::Range;

pub use config::Metadata;
pub use family::{Architecture, Family, MIXTRAL_EXPERTS, Names, POST_NORMS, SANDWICH_NORMS};
pub use source::{GgufSource, checkpoint};

use crate::LoadError;
use crate::checkpoint::source::ByteSource;

pub use crate::checkpoint::blocks::{BadScale, GgufType};

/// Longest header allowed; the longest that is published has 20 MB.
pub const MAX_HEADER: u64 = 100_000_000;
/// Most dimensions allowed, as in ggml.
pub const MAX_RANK: usize = 4;
/// Bytes of a value that a message shows.
const SHOWN_VALUE: usize = 200;

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Unsigned integers of 8 to 64 bits.
    Uint(u64),
    /// Signed integers of 8 to 64 bits.
    Int(i64),
    /// Numbers of 32 and 64 bits.
    Float(f64),
    /// Truth values.
    Bool(bool),
    /// Text.
    String(String),
    /// Elements of one type.
    Array(Array),
}

impl Value {
    /// The beginning of its text, for messages; no more of it is formatted.
    fn excerpt(&self) -> String {
        let mut out = Excerpt(String::new());
        if write!(out, "{self:?}").is_err() {
            out.0.push_str(" ...");
        }
        out.0
    }
}

/// Takes a text up to [`SHOWN_VALUE`] bytes and refuses the rest.
struct Excerpt(String);

impl fmt::Write for Excerpt {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left = SHOWN_VALUE - self.0.len();
        if text.len() <= left {
            self.0.push_str(text);
            return Ok(());
        }
        self.0.push_str(&text[..text.floor_char_boundary(left)]);
        Err(fmt::Error)
    }
}

/// An array of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Unsigned integers of 8 bits.
    Byte(Vec<u8>),
    /// Unsigned integers of 16 to 64 bits.
    Uint(Vec<u64>),
    /// Signed integers.
    Int(Vec<i64>),
    /// Numbers.
    Float(Vec<f64>),
    /// Truth values.
    Bool(Vec<bool>),
    /// Texts.
    String(Vec<String>),
    /// Arrays.
    Array(Vec<Self>),
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Byte(v) => v.len(),
            Self::Uint(v) => v.len(),
            Self::Int(v) => v.len(),
            Self::Float(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::String(v) => v.len(),
            Self::Array(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Integers of any type, where all are 0 or more.
    fn uints(&self) -> Option<Vec<u64>> {
        match self {
            Self::Byte(v) => Some(v.iter().copied().map(u64::from).collect()),
            Self::Uint(v) => Some(v.clone()),
            Self::Int(v) => v.iter().map(|&v| u64::try_from(v).ok()).collect(),
            _ => None,
        }
    }
}

/// Where a tensor lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufTensor {
    /// Name, in ggml's terms.
    pub name: String,
    /// Element type.
    pub ty: GgufType,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// File.
    pub file: String,
    /// Bytes in that file.
    pub range: Range<u64>,
}

/// The header of a file, or of all parts of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Gguf {
    /// File; the first part.
    pub file: String,
    /// Version, 2 or 3.
    pub version: u32,
    /// Metadata.
    pub metadata: BTreeMap<String, Value>,
    /// Tensors, in the order of their data.
    pub tensors: Vec<GgufTensor>,
}

impl Gguf {
    /// Reads the header of a file, or of all parts of the file that it is a part of: any may be named.
    ///
    /// # Errors
    /// [`LoadError`]: a file that is none, truncated, of another version; counts and lengths larger than the file;
    /// tensors of unknown types, outside of the file, not aligned, overlapping; parts that are missing or do not belong
    /// together.
    pub async fn open(source: &dyn ByteSource, file: &str) -> Result<Self, LoadError> {
        let found = Self::open_part(source, file).await?;
        match found.uint("split.count")? {
            None | Some(0 | 1) => Ok(found),
            Some(_) => split::join(source, found).await,
        }
    }

    /// A tensor, by ggml's name.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.tensors.iter().find(|t| t.name == name)
    }

    fn bad(&self, key: &str, want: &str) -> LoadError {
        let got = self.metadata.get(key).map_or_else(|| "absent".to_owned(), Value::excerpt);
        field(&self.file, key, got, want)
    }

    /// A whole number, 0 or more.
    ///
    /// # Errors
    /// A value of another type.
    pub fn uint(&self, key: &str) -> Result<Option<u64>, LoadError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Uint(v)) => Ok(Some(*v)),
            Some(Value::Int(v)) if *v >= 0 => Ok(Some(*v as u64)),
            Some(_) => Err(self.bad(key, "a whole number, 0 or more")),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// A value of another type, NaN and infinity.
    pub fn float(&self, key: &str) -> Result<Option<f64>, LoadError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Float(v)) if v.is_finite() => Ok(Some(*v)),
            Some(Value::Uint(v)) => Ok(Some(*v as f64)),
            Some(Value::Int(v)) => Ok(Some(*v as f64)),
            Some(_) => Err(self.bad(key, "a finite number")),
        }
    }

    /// A truth value.
    ///
    /// # Errors
    /// A value of another type.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, LoadError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Bool(v)) => Ok(Some(*v)),
            Some(_) => Err(self.bad(key, "true or false")),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// A value of another type.
    pub fn text(&self, key: &str) -> Result<Option<&str>, LoadError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::String(v)) => Ok(Some(v)),
            Some(_) => Err(self.bad(key, "a text")),
        }
    }

    /// A list of texts.
    ///
    /// # Errors
    /// A value of another type.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>, LoadError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::String(v))) => Ok(Some(v)),
            Some(_) => Err(self.bad(key, "a list of texts")),
        }
    }

    /// A list of whole numbers, 0 or more.
    ///
    /// # Errors
    /// A value of another type.
    pub fn uints(&self, key: &str) -> Result<Option<Vec<u64>>, LoadError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) => {
                array.uints().map(Some).ok_or_else(|| self.bad(key, "a list of whole numbers, 0 or more"))
            }
            Some(_) => Err(self.bad(key, "a list of whole numbers, 0 or more")),
        }
    }

    /// A list of numbers.
    ///
    /// # Errors
    /// A value of another type.
    pub fn floats(&self, key: &str) -> Result<Option<&[f64]>, LoadError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::Float(v))) => Ok(Some(v)),
            Some(_) => Err(self.bad(key, "a list of numbers")),
        }
    }
}

fn field(file: &str, field: &str, got: String, want: &str) -> LoadError {
    LoadError::Field { file: file.to_owned(), field: field.to_owned(), got, want: want.to_owned() }
}

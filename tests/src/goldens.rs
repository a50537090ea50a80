//! Independent expected results: the folder `GIRIH_GOLDENS` if set, else the committed copy in `tests/goldens`.
//! Layout: `ops/<op>.{json,safetensors}`, `models/<name>/`, `tokenizers/<name>/`.
//!
//! A missing or malformed golden fails the test that needs it, with the path.

mod counts;

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::files;

pub use counts::counted;

/// The folder of all goldens.
pub fn dir() -> PathBuf {
    files::goldens()
}

/// Subfolders of a folder of goldens, sorted.
///
/// # Panics
/// Another number of them than [`counted`] expects.
pub fn folders(kind: &str) -> Vec<PathBuf> {
    let dir = dir().join(kind);
    let files = files::below(&dir);
    let mut names: Vec<&str> = files.iter().filter_map(|file| Some(file.split_once('/')?.0)).collect();
    names.sort_unstable();
    names.dedup();
    counted(kind, names.len());
    names.into_iter().map(|name| dir.join(name)).collect()
}

/// A JSON file.
///
/// # Panics
/// A file that cannot be read or parsed.
pub fn json(path: &Path) -> Value {
    let text = files::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The JSON file `<path>.json` below the folder of all goldens, whose `cases` are a list.
///
/// # Panics
/// A file of another form, or another number of cases than [`counted`] expects.
pub fn cases(path: &str) -> Value {
    let golden = json(&dir().join(format!("{path}.json")));
    counted(path, golden["cases"].as_array().map_or(0, Vec::len));
    golden
}

/// A safetensors file.
pub struct Tensors {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Tensors {
    /// Reads a file.
    ///
    /// # Panics
    /// A file that cannot be read.
    pub fn open(path: &Path) -> Self {
        let bytes = files::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { path: path.to_owned(), bytes }
    }

    fn parsed(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap_or_else(|e| panic!("{}: {e}", self.path.display()))
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.parsed().names().into_iter().map(ToOwned::to_owned).collect();
        names.sort();
        names
    }

    /// Whether a tensor exists.
    pub fn has(&self, name: &str) -> bool {
        self.parsed().tensor(name).is_ok()
    }

    /// Shape and values, converted exactly to f64.
    ///
    /// # Panics
    /// A tensor that is not there or of a type that goldens do not use.
    pub fn f64(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let parsed = self.parsed();
        let view = parsed.tensor(name).unwrap_or_else(|e| panic!("{}: {name}: {e}", self.path.display()));
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => data.as_chunks().0.iter().map(|&c| f64::from(f32::from_le_bytes(c))).collect(),
            Dtype::F16 => data.as_chunks().0.iter().map(|&c| half::f16::from_le_bytes(c).to_f64()).collect(),
            Dtype::BF16 => {
                data.as_chunks().0.iter().map(|&c| half::bf16::from_le_bytes(c).to_f64()).collect()
            }
            Dtype::I64 => data.as_chunks().0.iter().map(|&c| i64::from_le_bytes(c) as f64).collect(),
            Dtype::I32 => data.as_chunks().0.iter().map(|&c| f64::from(i32::from_le_bytes(c))).collect(),
            Dtype::U8 => data.iter().map(|&c| f64::from(c)).collect(),
            Dtype::I8 => data.iter().map(|&c| f64::from(c.cast_signed())).collect(),
            other => panic!("{}: {name} is {other:?}", self.path.display()),
        };
        (view.shape().to_vec(), values)
    }

    /// Shape and values as f32.
    pub fn f32(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (shape, values) = self.f64(name);
        (shape, values.into_iter().map(|v| v as f32).collect())
    }

    /// Values as integers.
    pub fn ints(&self, name: &str) -> Vec<i64> {
        self.f64(name).1.into_iter().map(|v| v as i64).collect()
    }
}

/// The goldens of one operator.
pub struct Op {
    cases: Value,
    tensors: Tensors,
}

/// One case of an operator.
pub struct Case<'a> {
    /// Name.
    pub name: String,
    /// Its scalar parameters.
    pub json: &'a Value,
    tensors: &'a Tensors,
}

/// Opens `ops/<name>`.
pub fn op(name: &str) -> Op {
    Op {
        cases: cases(&format!("ops/{name}")),
        tensors: Tensors::open(&dir().join("ops").join(format!("{name}.safetensors"))),
    }
}

impl Op {
    /// All cases, in the file's order.
    ///
    /// # Panics
    /// A file of another form.
    pub fn cases(&self) -> Vec<Case<'_>> {
        let cases = self.cases["cases"].as_array().expect("cases is a list");
        cases
            .iter()
            .map(|json| Case {
                name: json["name"].as_str().unwrap_or_default().to_owned(),
                json: &json["params"],
                tensors: &self.tensors,
            })
            .collect()
    }
}

impl Case<'_> {
    /// Whether the case has a tensor.
    pub fn has(&self, tensor: &str) -> bool {
        self.tensors.has(&format!("{}.{tensor}", self.name))
    }

    /// Shape and values.
    pub fn f32(&self, tensor: &str) -> (Vec<u32>, Vec<f32>) {
        let (shape, values) = self.tensors.f32(&format!("{}.{tensor}", self.name));
        (shape.into_iter().map(|d| d as u32).collect(), values)
    }

    /// Integer values.
    pub fn ints(&self, tensor: &str) -> Vec<i64> {
        self.tensors.ints(&format!("{}.{tensor}", self.name))
    }

    /// A number parameter.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.json[name].as_f64()
    }

    /// Whether a boolean parameter is present and true.
    pub fn flag(&self, name: &str) -> bool {
        self.json[name].as_bool() == Some(true)
    }
}

/// Compares with a golden; the message names the case and the worst element.
///
/// # Panics
/// A difference over `abs + rel |want|`, NaN, another length.
pub fn assert_close(what: &str, got: &[f32], want: &[f32], abs: f64, rel: f64) {
    assert_eq!(got.len(), want.len(), "{what}: number of elements");
    let tolerance = girih_kernels::testing::Tolerance { abs, rel };
    if let Some((i, g, w, allowed, count)) = girih_kernels::testing::compare(got, want, tolerance) {
        panic!("{what}: [{i}] is {g}, want {w} +- {allowed:.2e}; {count} of {} differ", want.len());
    }
}

//! Reading fields of a description.

use serde_json::{Map, Value};

use crate::LoadError;
use crate::checkpoint::format::json;

/// Where `config.json` has it.
const FIELD: &str = "quantization_config";
pub(super) const CONFIG: &str = "config.json";

/// A field that cannot be used. `path` begins with a dot, or is empty for the description as a whole.
pub(super) fn bad(file: &str, path: &str, got: Option<&Value>, want: impl Into<String>) -> LoadError {
    let (got, want) = (json::excerpt_or_absent(got), want.into());
    if file == CONFIG {
        return LoadError::Config { field: format!("{FIELD}{path}"), got, want };
    }
    let path = path.strip_prefix('.').unwrap_or(path);
    let field = if path.is_empty() { "top level" } else { path };
    LoadError::Field { file: file.to_owned(), field: field.to_owned(), got, want }
}

/// Reads fields of an object and says what is wrong with them.
pub(super) struct Fields<'a> {
    /// The file that the object stands in.
    pub file: &'a str,
    pub path: String,
    pub map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|v| !v.is_null())
    }

    pub fn bad(&self, name: &str, want: impl Into<String>) -> LoadError {
        bad(self.file, &format!("{}.{name}", self.path), self.map.get(name), want)
    }

    pub fn text(&self, name: &str) -> Result<Option<&'a str>, LoadError> {
        self.get(name).map(|v| v.as_str().ok_or_else(|| self.bad(name, "a text"))).transpose()
    }

    pub fn int(&self, name: &str) -> Result<Option<u64>, LoadError> {
        self.get(name)
            .map(|v| {
                v.as_u64().filter(|v| *v < 1 << 30).ok_or_else(|| self.bad(name, "a whole number below 2^30"))
            })
            .transpose()
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>, LoadError> {
        self.get(name).map(|v| v.as_bool().ok_or_else(|| self.bad(name, "true or false"))).transpose()
    }

    pub fn object(&self, name: &str) -> Result<Option<Self>, LoadError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                Ok(Some(Fields { file: self.file, path: format!("{}.{name}", self.path), map }))
            }
            Some(_) => Err(self.bad(name, "an object")),
        }
    }

    /// A group size; -1 and absence mean the row.
    pub fn group(&self, name: &str) -> Result<Option<u32>, LoadError> {
        match self.get(name).map(Value::as_i64) {
            None | Some(Some(-1)) => Ok(None),
            Some(Some(g)) if (1..1 << 30).contains(&g) => Ok(Some(g as u32)),
            _ => Err(self.bad(name, "a whole number above 0, or -1 for the whole row")),
        }
    }

    /// Two sizes.
    pub fn block(&self, name: &str) -> Result<Option<[u32; 2]>, LoadError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let size = |v: &Value| v.as_u64().filter(|v| (1..1 << 30).contains(v)).map(|v| v as u32);
        match value.as_array().map(Vec::as_slice) {
            Some([a, b]) => size(a).zip(size(b)).map(|(a, b)| Some([a, b])),
            _ => None,
        }
        .ok_or_else(|| self.bad(name, "two whole numbers above 0"))
    }
}

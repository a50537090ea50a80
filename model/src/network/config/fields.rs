//! Reading single fields.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::LoadError;
use crate::checkpoint::format::json;

/// Reads fields and says what is wrong with them.
pub(super) struct Fields<'a>(pub &'a Map<String, Value>);

/// A field that cannot be used.
pub(super) fn bad(field: &str, got: Option<&Value>, want: impl Into<String>) -> LoadError {
    LoadError::Config { field: field.to_owned(), got: json::excerpt_or_absent(got), want: want.into() }
}

/// A whole number. Some tools write them with a fraction of zero: `32768.0`, `1e6`.
pub(super) fn whole(value: &Value) -> Option<i64> {
    const EXACT: f64 = (1u64 << 53) as f64;
    value
        .as_i64()
        .or_else(|| value.as_f64().filter(|v| v.fract() == 0.0 && v.abs() < EXACT).map(|v| v as i64))
}

impl Fields<'_> {
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|v| !v.is_null())
    }

    pub fn is_null(&self, field: &str) -> bool {
        self.0.get(field).is_some_and(Value::is_null)
    }

    pub fn bad(&self, field: &str, want: impl Into<String>) -> LoadError {
        bad(field, self.0.get(field), want)
    }

    pub fn int(&self, field: &str, max: u32) -> Result<Option<u32>, LoadError> {
        self.get(field)
            .map(|v| {
                let n = whole(v).filter(|n| (1..=i64::from(max)).contains(n));
                n.map(|n| n as u32).ok_or_else(|| self.bad(field, format!("a whole number from 1 to {max}")))
            })
            .transpose()
    }

    /// A number that the class has a default for, which is not "none".
    pub fn size(&self, field: &str, max: u32, default: u32) -> Result<u32, LoadError> {
        if self.is_null(field) {
            return Err(self.bad(field, format!("a whole number from 1 to {max}")));
        }
        Ok(self.int(field, max)?.unwrap_or(default))
    }

    /// A number that may be 0 or negative; the default where it is absent or null.
    pub fn integer(&self, field: &str, range: RangeInclusive<i64>, default: i64) -> Result<i64, LoadError> {
        let Some(value) = self.get(field) else { return Ok(default) };
        let want = || format!("a whole number from {} to {}", range.start(), range.end());
        whole(value).filter(|n| range.contains(n)).ok_or_else(|| self.bad(field, want()))
    }

    pub fn float(&self, field: &str) -> Result<Option<f64>, LoadError> {
        self.get(field)
            .map(|v| v.as_f64().filter(|v| v.abs() < 1e30).ok_or_else(|| self.bad(field, "a finite number")))
            .transpose()
    }

    /// A number above zero.
    pub fn positive(&self, field: &str) -> Result<Option<f32>, LoadError> {
        match self.float(field)? {
            Some(v) if v as f32 <= 0.0 => Err(self.bad(field, "a number above 0")),
            v => Ok(v.map(|v| v as f32)),
        }
    }

    pub fn flag(&self, field: &str) -> Result<Option<bool>, LoadError> {
        self.get(field).map(|v| v.as_bool().ok_or_else(|| self.bad(field, "true or false"))).transpose()
    }

    /// One token or several, `default` where the field is absent, none where it is null. Negative numbers, which some
    /// files use for none, are left out.
    pub fn tokens(&self, field: &str, default: &[u32]) -> Result<Vec<u32>, LoadError> {
        let list = match self.0.get(field) {
            None => return Ok(default.to_vec()),
            Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(list)) => list.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        let mut tokens = Vec::new();
        for v in list {
            match whole(v).map(|n| (n, u32::try_from(n))) {
                Some((_, Ok(token))) => tokens.push(token),
                Some((..0, Err(_))) => {}
                _ => return Err(self.bad(field, "a token id or a list of them")),
            }
        }
        Ok(tokens)
    }
}

//! What distinguishes one pipeline of a kernel from another.

use std::fmt;

/// A specialised constant: the right-hand side of a `//!spec` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// `const X: u32 = 4u;`
    U32(u32),
    /// `const X: bool = true;`
    Bool(bool),
    /// `alias T = f32;`
    Type(&'static str),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U32(v) => write!(f, "{v}u"),
            Self::Bool(v) => write!(f, "{v}"),
            Self::Type(v) => f.write_str(v),
        }
    }
}

impl From<u32> for Value {
    fn from(v: u32) -> Self {
        Self::U32(v)
    }
}

impl From<bool> for Value {
    fn from(v: bool) -> Self {
        Self::Bool(v)
    }
}

impl From<&'static str> for Value {
    fn from(v: &'static str) -> Self {
        Self::Type(v)
    }
}

/// Constants and parts of one pipeline. Equal selections of one file are one pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selection {
    spec: Vec<(&'static str, Value)>,
    parts: Vec<(&'static str, &'static str)>,
}

impl Selection {
    /// Nothing replaced: the file's own defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the constant or alias `name`.
    #[must_use]
    pub fn set(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.spec.retain(|&(n, _)| n != name);
        self.spec.push((name, value.into()));
        self.spec.sort_unstable();
        self
    }

    /// Fills the slot (or replaces the import with the stem) `name` by the file `path`.
    #[must_use]
    pub fn part(mut self, name: &'static str, path: &'static str) -> Self {
        self.parts.retain(|&(n, _)| n != name);
        self.parts.push((name, path));
        self.parts.sort_unstable();
        self
    }

    /// The value of a constant, if it was set.
    pub fn get(&self, name: &str) -> Option<Value> {
        self.spec.iter().find(|(n, _)| *n == name).map(|&(_, v)| v)
    }

    /// The value of a `u32` constant, if it was set.
    pub fn get_u32(&self, name: &str) -> Option<u32> {
        match self.get(name) {
            Some(Value::U32(v)) => Some(v),
            _ => None,
        }
    }

    /// Whether a `bool` constant was set to true.
    pub fn get_bool(&self, name: &str) -> bool {
        self.get(name) == Some(Value::Bool(true))
    }

    /// The file that fills a slot, if one was chosen.
    pub fn get_part(&self, name: &str) -> Option<&'static str> {
        self.parts.iter().find(|(n, _)| *n == name).map(|&(_, p)| p)
    }

    /// How many constants and parts are set alike in another selection.
    pub fn agreement(&self, other: &Self) -> usize {
        let constants = self.spec.iter().filter(|entry| other.spec.contains(entry)).count();
        constants + self.parts.iter().filter(|entry| other.parts.contains(entry)).count()
    }

    pub(crate) fn spec(&self) -> &[(&'static str, Value)] {
        &self.spec
    }

    pub(crate) fn parts(&self) -> &[(&'static str, &'static str)] {
        &self.parts
    }
}

/// `BM=64 BN=64 weights=f16`: what a profile line prints.
impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sep = "";
        for (name, value) in &self.spec {
            match value {
                Value::U32(v) => write!(f, "{sep}{name}={v}")?,
                value => write!(f, "{sep}{name}={value}")?,
            }
            sep = " ";
        }
        for (name, path) in &self.parts {
            let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".wgsl");
            write!(f, "{sep}{name}={stem}")?;
            sep = " ";
        }
        Ok(())
    }
}

//! From token states to one vector: the `modules.json` of sentence-transformers.

use serde_json::Value;

use crate::error::LoadError;
use crate::format::json;
use crate::source::{ByteSource, read_whole};

/// Which token states make the vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Mean over all tokens.
    Mean,
    /// First token.
    FirstToken,
    /// Last token.
    LastToken,
}

/// How token states become an embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pooling {
    /// Which token states.
    pub mode: Mode,
    /// Whether the vector is divided by its Euclidean length.
    pub normalize: bool,
}

impl Default for Pooling {
    fn default() -> Self {
        Self { mode: Mode::Mean, normalize: true }
    }
}

async fn read_json(source: &dyn ByteSource, file: &str) -> Result<Option<Value>, LoadError> {
    let bytes = read_whole(source, file, 1 << 20).await?;
    bytes.map(|bytes| json::parse(file, &bytes)).transpose()
}

impl Pooling {
    /// Reads `modules.json` and the pooling module's `config.json`; mean and normalised where there are none.
    ///
    /// # Errors
    /// Malformed files, a pooling mode that is not known.
    pub async fn load(source: &dyn ByteSource) -> Result<Self, LoadError> {
        let Some(modules) = read_json(source, "modules.json").await? else { return Ok(Self::default()) };
        let module = |kind: &str| {
            modules
                .as_array()
                .into_iter()
                .flatten()
                .find(|m| m["type"].as_str().is_some_and(|t| t.ends_with(kind)))
        };
        let path = module(".Pooling").and_then(|m| m["path"].as_str()).unwrap_or("1_Pooling");
        let file = format!("{path}/config.json");
        let config = read_json(source, &file).await?.unwrap_or(Value::Null);
        let on = |name: &str| config[name].as_bool() == Some(true);
        let modes = [
            ("pooling_mode_mean_tokens", Mode::Mean),
            ("pooling_mode_cls_token", Mode::FirstToken),
            ("pooling_mode_lasttoken", Mode::LastToken),
        ];
        let mode = match modes.iter().find(|(name, _)| on(name)) {
            Some(&(_, mode)) => mode,
            None if config.is_null() => Mode::Mean,
            None => {
                return Err(LoadError::Field {
                    file,
                    field: "pooling_mode_*".into(),
                    got: config.to_string(),
                    want: "mean_tokens, cls_token or lasttoken".into(),
                });
            }
        };
        Ok(Self { mode, normalize: module(".Normalize").is_some() })
    }

    /// States `[T, C]`, row-major, T > 0 → `[C]`.
    pub fn apply(&self, states: &[f32], channels: usize) -> Vec<f32> {
        let rows = states.len() / channels;
        let mut pooled: Vec<f64> = match self.mode {
            Mode::FirstToken => states[..channels].iter().map(|&v| f64::from(v)).collect(),
            Mode::LastToken => states[(rows - 1) * channels..].iter().map(|&v| f64::from(v)).collect(),
            Mode::Mean => (0..channels)
                .map(|c| {
                    states.iter().skip(c).step_by(channels).map(|&v| f64::from(v)).sum::<f64>() / rows as f64
                })
                .collect(),
        };
        if self.normalize {
            let length = pooled.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
            for v in &mut pooled {
                *v /= length;
            }
        }
        pooled.into_iter().map(|v| v as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_and_normalises() {
        let states = [3.0, 0.0, 3.0, 8.0];
        let pool = |mode, normalize| Pooling { mode, normalize }.apply(&states, 2);
        assert_eq!(pool(Mode::Mean, false), [3.0, 4.0]);
        assert_eq!(pool(Mode::Mean, true), [0.6, 0.8]);
        assert_eq!(pool(Mode::FirstToken, false), [3.0, 0.0]);
        assert_eq!(pool(Mode::LastToken, false), [3.0, 8.0]);
    }
}

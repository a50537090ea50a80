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
        let kind = |m: &Value| m["type"].as_str().and_then(|t| t.rsplit('.').next()).map(str::to_owned);
        let list = modules.as_array().map(Vec::as_slice).unwrap_or_default();
        for module in list {
            if !matches!(kind(module).as_deref(), Some("Transformer" | "Pooling" | "Normalize")) {
                return Err(LoadError::Field {
                    file: "modules.json".into(),
                    field: "type".into(),
                    got: module["type"].to_string(),
                    want: "Transformer, Pooling or Normalize (other modules are not supported yet)".into(),
                });
            }
        }
        let module = |name: &str| list.iter().find(|m| kind(m).as_deref() == Some(name));
        let path = module("Pooling").and_then(|m| m["path"].as_str()).unwrap_or("1_Pooling");
        let file = format!("{path}/config.json").trim_start_matches('/').to_owned();
        let config = read_json(source, &file).await?.unwrap_or(Value::Null);
        let modes = [
            ("pooling_mode_mean_tokens", "mean", Mode::Mean),
            ("pooling_mode_cls_token", "cls", Mode::FirstToken),
            ("pooling_mode_lasttoken", "lasttoken", Mode::LastToken),
        ];
        // One flag for each mode; a name in newer files.
        let on = |flag: &str| {
            let known = modes.iter().find(|(name, ..)| *name == flag);
            known.map_or(flag, |(_, short, _)| *short).to_owned()
        };
        let mut chosen: Vec<String> = config
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(flag, v)| flag.starts_with("pooling_mode_") && v.as_bool() == Some(true))
            .map(|(flag, _)| on(flag))
            .collect();
        chosen.extend(config["pooling_mode"].as_str().map(str::to_owned));
        chosen.dedup();
        let mode = match chosen.as_slice() {
            [] if config.is_null() => Some(Mode::Mean),
            [one] => modes.iter().find(|(_, short, _)| short == one).map(|&(.., mode)| mode),
            _ => None,
        };
        let Some(mode) = mode else {
            return Err(LoadError::Field {
                file,
                field: "pooling_mode_*".into(),
                got: config.to_string(),
                want: "one of mean_tokens, cls_token and lasttoken".into(),
            });
        };
        Ok(Self { mode, normalize: module("Normalize").is_some() })
    }

    /// States `[T, C]`, row-major, T > 0 → `[C]`.
    pub fn apply(&self, states: &[f32], channels: usize) -> Vec<f32> {
        let mut rows = states.chunks_exact(channels.max(1));
        let wide = |row: Option<&[f32]>| row.into_iter().flatten().map(|&v| f64::from(v)).collect();
        let mut pooled: Vec<f64> = match self.mode {
            Mode::FirstToken => wide(rows.next()),
            Mode::LastToken => wide(rows.next_back()),
            Mode::Mean => (0..channels)
                .map(|c| {
                    states.iter().skip(c).step_by(channels).map(|&v| f64::from(v)).sum::<f64>()
                        / rows.len() as f64
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

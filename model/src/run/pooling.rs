//! From token states to one vector: the `modules.json` of sentence-transformers.

use serde_json::Value;

use crate::checkpoint::format::json;
use crate::checkpoint::source::{ByteSource, read_whole};
use crate::error::LoadError;

/// How the states of tokens make a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// First token.
    FirstToken,
    /// Largest value of each channel.
    Max,
    /// Mean over all tokens.
    Mean,
    /// Sum over all tokens, divided by the square root of their number.
    MeanSqrtLength,
    /// Mean over all tokens, the first with weight 1, the second with weight 2, and so on.
    WeightedMean,
    /// Last token.
    LastToken,
}

/// Flag of older files, name in newer ones; the vectors of several follow each other in this order.
const MODES: [(&str, &str, Mode); 6] = [
    ("pooling_mode_cls_token", "cls", Mode::FirstToken),
    ("pooling_mode_max_tokens", "max", Mode::Max),
    ("pooling_mode_mean_tokens", "mean", Mode::Mean),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Mode::MeanSqrtLength),
    ("pooling_mode_weightedmean_tokens", "weightedmean", Mode::WeightedMean),
    ("pooling_mode_lasttoken", "lasttoken", Mode::LastToken),
];

/// How token states become an embedding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pooling {
    /// How the states make a vector; those of several modes follow each other. At least one.
    pub modes: Vec<Mode>,
    /// Whether the vector is divided by its Euclidean length.
    pub normalize: bool,
    /// Whether the tokens of a prompt take part.
    pub include_prompt: bool,
}

impl Default for Pooling {
    fn default() -> Self {
        Self { modes: vec![Mode::Mean], normalize: true, include_prompt: true }
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
    /// Malformed files, a module or pooling mode that is not known.
    pub async fn load(source: &dyn ByteSource) -> Result<Self, LoadError> {
        let Some(modules) = read_json(source, "modules.json").await? else { return Ok(Self::default()) };
        let kind = |m: &Value| m["type"].as_str().and_then(|t| t.rsplit('.').next()).map(str::to_owned);
        let list = modules.as_array().map(Vec::as_slice).unwrap_or_default();
        for module in list {
            if !matches!(kind(module).as_deref(), Some("Transformer" | "Pooling" | "Normalize")) {
                return Err(LoadError::Field {
                    file: "modules.json".into(),
                    field: "type".into(),
                    got: json::excerpt(&module["type"]),
                    want: "Transformer, Pooling or Normalize (other modules are not supported yet)".into(),
                });
            }
        }
        let module = |name: &str| list.iter().find(|m| kind(m).as_deref() == Some(name));
        let path = module("Pooling").and_then(|m| m["path"].as_str()).unwrap_or("1_Pooling");
        let file = format!("{path}/config.json").trim_start_matches('/').to_owned();
        let config = read_json(source, &file).await?.unwrap_or(Value::Null);
        let include_prompt = match &config["include_prompt"] {
            Value::Null => true,
            Value::Bool(include) => *include,
            other => {
                let (field, got) = ("include_prompt".into(), json::excerpt(other));
                return Err(LoadError::Field { file, field, got, want: "true or false".into() });
            }
        };
        let modes = Self::modes(&file, &config)?;
        Ok(Self { modes, normalize: module("Normalize").is_some(), include_prompt })
    }

    /// A name or a list of names, or flags; the mean where there is neither.
    fn modes(file: &str, config: &Value) -> Result<Vec<Mode>, LoadError> {
        let bad = |field: &str, got: &str| LoadError::Field {
            file: file.to_owned(),
            field: field.to_owned(),
            got: got.to_owned(),
            want: format!("one of {}", MODES.map(|(_, name, _)| name).join(", ")),
        };
        let field = &config["pooling_mode"];
        let named = match field {
            Value::Null => Vec::new(),
            Value::Array(list) => list.iter().collect(),
            one => vec![one],
        };
        let of = |name: &Value| {
            let mode = MODES.iter().find(|(_, known, _)| name.as_str() == Some(*known));
            mode.map(|&(.., mode)| mode).ok_or_else(|| bad("pooling_mode", &name.to_string()))
        };
        let mut modes = named.into_iter().map(of).collect::<Result<Vec<Mode>, _>>()?;
        if field.is_null() {
            let on = |flag: &str| config[flag].as_bool() == Some(true);
            modes.extend(MODES.iter().filter(|(flag, ..)| on(flag)).map(|&(.., mode)| mode));
            let unknown = config.as_object().into_iter().flatten().find(|(flag, v)| {
                flag.starts_with("pooling_mode_")
                    && v.as_bool() == Some(true)
                    && MODES.iter().all(|(known, ..)| flag != known)
            });
            if let Some((flag, _)) = unknown {
                return Err(bad(flag, "true"));
            }
        }
        if modes.is_empty() {
            modes.push(Mode::Mean);
        }
        Ok(modes)
    }

    /// States `[T, C]`, row-major → `[C]` for each mode. The first `prompt` tokens do not take part; where no others
    /// are left, the vector is zero.
    pub fn apply(&self, states: &[f32], channels: usize, prompt: usize) -> Vec<f32> {
        let rows: Vec<&[f32]> = states.chunks_exact(channels.max(1)).skip(prompt).collect();
        let mut pooled: Vec<f64> = Vec::with_capacity(self.modes.len() * channels);
        for mode in &self.modes {
            pooled.extend((0..channels).map(|c| pool(*mode, &rows, prompt, c)));
        }
        if self.normalize {
            let length = pooled.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
            for v in &mut pooled {
                *v /= length;
            }
        }
        pooled.into_iter().map(|v| v as f32).collect()
    }
}

/// One channel; `before` is the number of tokens before the first row.
fn pool(mode: Mode, rows: &[&[f32]], before: usize, channel: usize) -> f64 {
    let value = |row: &&[f32]| f64::from(row[channel]);
    let sum = || rows.iter().map(value).sum::<f64>();
    let count = rows.len() as f64;
    match mode {
        _ if rows.is_empty() => 0.0,
        Mode::FirstToken => rows.first().map_or(0.0, value),
        Mode::LastToken => rows.last().map_or(0.0, value),
        Mode::Max => rows.iter().map(value).fold(f64::NEG_INFINITY, f64::max),
        Mode::Mean => sum() / count,
        Mode::MeanSqrtLength => sum() / count.sqrt(),
        Mode::WeightedMean => {
            let weights = (before + 1..).map(|weight| weight as f64);
            let weighted: f64 = rows.iter().map(value).zip(weights.clone()).map(|(v, w)| v * w).sum();
            weighted / weights.take(rows.len()).sum::<f64>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_and_normalises() {
        let states = [3.0, 0.0, 3.0, 8.0];
        let pool = |modes: &[Mode], normalize, prompt| {
            Pooling { modes: modes.to_vec(), normalize, include_prompt: true }.apply(&states, 2, prompt)
        };
        assert_eq!(pool(&[Mode::Mean], false, 0), [3.0, 4.0]);
        assert_eq!(pool(&[Mode::Mean], true, 0), [0.6, 0.8]);
        assert_eq!(pool(&[Mode::FirstToken], false, 0), [3.0, 0.0]);
        assert_eq!(pool(&[Mode::LastToken], false, 0), [3.0, 8.0]);
        assert_eq!(pool(&[Mode::Max], false, 0), [3.0, 8.0]);
        assert_eq!(pool(&[Mode::WeightedMean], false, 0), [3.0, 16.0 / 3.0]);
        assert_eq!(pool(&[Mode::MeanSqrtLength, Mode::FirstToken], false, 1), [3.0, 8.0, 3.0, 8.0]);
        assert_eq!(pool(&[Mode::WeightedMean], false, 1), [3.0, 8.0]);
        assert_eq!(pool(&[Mode::Max, Mode::Mean], true, 2), [0.0; 4]);
    }

    #[test]
    fn modes_of_older_and_newer_files() {
        let modes = |text: &str| {
            let config = serde_json::from_str(text).expect("JSON");
            Pooling::modes("1_Pooling/config.json", &config).map_err(|e| e.to_string())
        };
        assert_eq!(modes("{}"), Ok(vec![Mode::Mean]));
        assert_eq!(modes(r#"{"pooling_mode":"lasttoken"}"#), Ok(vec![Mode::LastToken]));
        assert_eq!(modes(r#"{"pooling_mode":["mean","cls"]}"#), Ok(vec![Mode::Mean, Mode::FirstToken]));
        let both = r#"{"pooling_mode_mean_tokens":true,"pooling_mode_cls_token":true,
            "pooling_mode_max_tokens":false}"#;
        assert_eq!(modes(both), Ok(vec![Mode::FirstToken, Mode::Mean]));
        for bad in [r#"{"pooling_mode":"median"}"#, r#"{"pooling_mode":3}"#] {
            assert!(modes(bad).is_err_and(|e| e.contains("weightedmean")), "{bad}");
        }
        assert!(modes(r#"{"pooling_mode_median":true}"#).is_err_and(|e| e.contains("pooling_mode_median")));
    }
}

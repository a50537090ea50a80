//! `generation_config.json`: the checkpoint's own defaults.

use serde_json::Value;

use crate::config::Config;
use crate::error::LoadError;
use crate::format::json;
use crate::sampler::Sampling;
use crate::source::{ByteSource, read_whole};

/// How a checkpoint wants to be sampled, and where it stops.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Sampling; greedy unless the file says `do_sample`.
    pub sampling: Sampling,
    /// Tokens that end a text.
    pub eos_token_ids: Vec<u32>,
}

const FILE: &str = "generation_config.json";

impl GenerationConfig {
    /// Reads the file, with the defaults of transformers (temperature 1 and top-k 50 if it samples); what it leaves out comes from the model's configuration.
    ///
    /// # Errors
    /// A file that is not JSON, values out of range.
    pub async fn load(source: &dyn ByteSource, config: &Config) -> Result<Self, LoadError> {
        let mut found = Self { sampling: Sampling::default(), eos_token_ids: config.eos_token_ids.clone() };
        let Some(bytes) = read_whole(source, FILE, 1 << 20).await? else { return Ok(found) };
        let value = json::parse(FILE, &bytes)?;
        let bad = |field: &str, got: &Value, want: &str| LoadError::Field {
            file: FILE.into(),
            field: field.into(),
            got: got.to_string(),
            want: want.into(),
        };
        let number = |field: &str| match &value[field] {
            Value::Null => Ok(None),
            v => v.as_f64().map(Some).ok_or_else(|| bad(field, v, "a number")),
        };
        match &value["eos_token_id"] {
            Value::Null => {}
            v => {
                let list = v.as_array().map_or_else(|| vec![v.clone()], Clone::clone);
                // Some files write -1 for none.
                let ids = list.iter().filter(|v| v.as_i64().is_none_or(|id| id >= 0));
                found.eos_token_ids = ids
                    .map(|v| v.as_u64().and_then(|id| u32::try_from(id).ok()))
                    .collect::<Option<_>>()
                    .ok_or_else(|| bad("eos_token_id", v, "a token id or a list of them"))?;
            }
        }
        if value["do_sample"].as_bool() == Some(true) {
            let s = &mut found.sampling;
            s.temperature = number("temperature")?.unwrap_or(1.0) as f32;
            s.top_k = number("top_k")?.unwrap_or(50.0) as u32;
            s.top_p = number("top_p")?.unwrap_or(1.0) as f32;
            s.min_p = number("min_p")?.unwrap_or(0.0) as f32;
            s.repetition_penalty = number("repetition_penalty")?.unwrap_or(1.0) as f32;
            s.validate().map_err(|e| bad("sampling", &Value::String(e.to_string()), "values in range"))?;
        }
        Ok(found)
    }
}

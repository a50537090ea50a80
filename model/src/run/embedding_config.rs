//! What a checkpoint says about texts to be embedded: prompts, the longest text, letters, pooling.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::checkpoint::format::json;
use crate::checkpoint::source::{ByteSource, read_whole};
use crate::error::{LoadError, RunError};
use crate::network::config::Config;
use crate::run::pooling::{Mode, Pooling};

/// What stands in front of a text that is embedded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prompt<'a> {
    /// The checkpoint's default prompt, none if it has none.
    #[default]
    Default,
    /// A prompt of the checkpoint ([`Prompts::texts`]), by its name.
    Named(&'a str),
    /// This one; nothing if it is empty.
    Text(&'a str),
}

/// `prompts` and `default_prompt_name` of `config_sentence_transformers.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompts {
    /// Prompts by name.
    pub texts: BTreeMap<String, String>,
    /// Name of the one that is used where nothing else is asked for.
    pub default: Option<String>,
}

impl Prompts {
    /// The text of a prompt.
    ///
    /// # Errors
    /// A name that the checkpoint does not have.
    pub fn text<'a>(&'a self, prompt: Prompt<'a>) -> Result<&'a str, RunError> {
        let name = match prompt {
            Prompt::Text(text) => return Ok(text),
            Prompt::Named(name) => name,
            Prompt::Default => match &self.default {
                Some(name) => name,
                None => return Ok(""),
            },
        };
        self.texts.get(name).map(String::as_str).ok_or_else(|| RunError::NoPrompt {
            got: name.to_owned(),
            known: self.texts.keys().cloned().collect(),
        })
    }
}

/// How texts become sequences and their states vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingConfig {
    /// From states to vectors.
    pub pooling: Pooling,
    /// What may stand in front of a text.
    pub prompts: Prompts,
    /// Tokens that are embedded at most, special tokens included; the rest of the text is left out.
    pub max_length: u32,
    /// Whether a text that is too long loses its beginning instead of its end.
    pub truncate_start: bool,
    /// Whether texts are put into lower case, whatever the tokenizer does.
    pub lower_case: bool,
    /// A token that the model was trained to see at the end, although its tokenizer does not say so.
    pub end: Option<String>,
}

/// Files of the Transformer module; the first that exists counts.
const TRANSFORMER: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// A JSON file that need not exist.
struct File {
    name: &'static str,
    value: Value,
}

impl File {
    async fn read(source: &dyn ByteSource, name: &'static str) -> Result<Option<Self>, LoadError> {
        let Some(bytes) = read_whole(source, name, 16 << 20).await? else { return Ok(None) };
        Ok(Some(Self { name, value: json::parse(name, &bytes)? }))
    }

    fn bad(&self, field: &str, got: &Value, want: &str) -> LoadError {
        LoadError::Field {
            file: self.name.to_owned(),
            field: field.to_owned(),
            got: json::excerpt(got),
            want: want.to_owned(),
        }
    }

    fn flag(&self, field: &str) -> Result<Option<bool>, LoadError> {
        match &self.value[field] {
            Value::Null => Ok(None),
            Value::Bool(flag) => Ok(Some(*flag)),
            other => Err(self.bad(field, other, "true or false")),
        }
    }

    /// A number of tokens; some files write 1e30 for no limit.
    fn tokens(&self, field: &str) -> Result<Option<u32>, LoadError> {
        match &self.value[field] {
            Value::Null => Ok(None),
            value => match value.as_f64() {
                Some(tokens) if tokens >= 1.0 => Ok(Some(tokens as u32)),
                _ => Err(self.bad(field, value, "a number of tokens, 1 or more")),
            },
        }
    }
}

impl EmbeddingConfig {
    /// Reads `modules.json` with its pooling, `config_sentence_transformers.json`, `sentence_bert_config.json` (or its
    /// siblings) and what `tokenizer_config.json` says of lengths, as sentence-transformers does. Without a
    /// `max_seq_length` texts have as many tokens as tokenizer and model allow.
    ///
    /// # Errors
    /// Malformed files, values of another type, a default prompt that does not exist.
    pub async fn load(source: &dyn ByteSource, config: &Config) -> Result<Self, LoadError> {
        let pooling = Pooling::load(source).await?;
        let prompts = match File::read(source, "config_sentence_transformers.json").await? {
            Some(file) => prompts(&file)?,
            None => Prompts::default(),
        };
        let mut transformer = None;
        for name in TRANSFORMER {
            if transformer.is_none() {
                transformer = File::read(source, name).await?;
            }
        }
        let tokenizer = File::read(source, "tokenizer_config.json").await?;
        let limit = config.max_position_embeddings;
        let (mut max_length, mut lower_case) = (None, false);
        if let Some(file) = &transformer {
            max_length = file.tokens("max_seq_length")?;
            lower_case = file.flag("do_lower_case")?.unwrap_or(false);
        }
        let (mut truncate_start, mut end) = (false, None);
        if let Some(file) = &tokenizer {
            max_length = max_length.or(file.tokens("model_max_length")?);
            truncate_start = match &file.value["truncation_side"] {
                Value::Null => false,
                Value::String(side) if side == "right" => false,
                Value::String(side) if side == "left" => true,
                other => return Err(file.bad("truncation_side", other, "left or right")),
            };
            // The first files of Qwen3-Embedding have a tokenizer that adds nothing; Qwen's own code appended the
            // token there, and the tokenizer of its present files does. Whoever writes add_eos_token has decided.
            let pad = &file.value["pad_token"];
            let pad = pad.as_str().or(pad["content"].as_str());
            let undecided = file.value["add_eos_token"].is_null();
            if config.model_type == "qwen3" && pooling.modes == [Mode::LastToken] && undecided {
                end = pad.filter(|&token| token == "<|endoftext|>").map(str::to_owned);
            }
        }
        let max_length = max_length.map_or(limit, |length| length.min(limit));
        Ok(Self { pooling, prompts, max_length, truncate_start, lower_case, end })
    }
}

fn prompts(file: &File) -> Result<Prompts, LoadError> {
    let mut texts = BTreeMap::new();
    match &file.value["prompts"] {
        Value::Null => {}
        Value::Object(prompts) => {
            for (name, text) in prompts {
                let text = match text {
                    Value::Null => "",
                    Value::String(text) => text,
                    other => return Err(file.bad(&format!("prompts.{name}"), other, "a text")),
                };
                texts.insert(name.clone(), text.to_owned());
            }
        }
        other => return Err(file.bad("prompts", other, "texts by name")),
    }
    let default = match &file.value["default_prompt_name"] {
        Value::Null => None,
        Value::String(name) if texts.contains_key(name) => Some(name.clone()),
        other => {
            let known: Vec<&str> = texts.keys().map(String::as_str).collect();
            let want = format!("the name of one of the prompts ({})", known.join(", "));
            return Err(file.bad("default_prompt_name", other, &want));
        }
    };
    Ok(Prompts { texts, default })
}

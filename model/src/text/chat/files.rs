//! Where a checkpoint keeps its chat templates and the names of its special tokens, as transformers looks for them.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use crate::checkpoint::format::json;
use crate::checkpoint::source::{ByteSource, read_whole};
use crate::{LoadError, TextError};

/// A file of text that is no model may be this large.
const MAX_BYTES: u64 = 16 << 20;
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
const PROCESSOR_TEMPLATE: &str = "chat_template.json";
/// Folder of templates with other names than `default`.
const ADDITIONAL: &str = "additional_chat_templates/";
/// Names that are looked for where files cannot be listed (behind a URL): those that models are published with.
const USUAL: [&str; 2] = ["rag", "tool_use"];

/// The files of a checkpoint that say something of chats. Whatever is absent is `None`.
#[derive(Clone, Debug, Default)]
pub struct TemplateFiles {
    /// `tokenizer_config.json`: special tokens, `chat_template`.
    pub tokenizer_config: Option<Vec<u8>>,
    /// `special_tokens_map.json`: special tokens of checkpoints whose configuration has no `added_tokens_decoder`.
    pub special_tokens_map: Option<Vec<u8>>,
    /// `chat_template.jinja`: the template `default`.
    pub jinja: Option<Vec<u8>>,
    /// `chat_template.json` of processors: a template for checkpoints whose tokenizer has none.
    pub processor: Option<Vec<u8>>,
    /// `additional_chat_templates/NAME.jinja`: name and text.
    pub additional: Vec<(String, Vec<u8>)>,
}

/// What the files say: templates by name, special tokens by name.
pub(super) type Found = (BTreeMap<String, String>, Map<String, Json>);

impl TemplateFiles {
    /// Reads the files of a checkpoint.
    ///
    /// # Errors
    /// Those of the source; a file beyond 16 MiB.
    pub async fn read(source: &dyn ByteSource) -> Result<Self, LoadError> {
        let mut files = Self {
            tokenizer_config: read_whole(source, TOKENIZER_CONFIG, MAX_BYTES).await?,
            special_tokens_map: read_whole(source, SPECIAL_TOKENS_MAP, MAX_BYTES).await?,
            jinja: read_whole(source, "chat_template.jinja", MAX_BYTES).await?,
            processor: read_whole(source, PROCESSOR_TEMPLATE, MAX_BYTES).await?,
            additional: Vec::new(),
        };
        // transformers writes all templates as files, or none.
        let usual = USUAL.iter().filter(|_| files.jinja.is_some());
        let usual = || usual.map(|name| format!("{ADDITIONAL}{name}.jinja")).collect();
        for file in source.list().unwrap_or_else(usual) {
            let name = file.strip_prefix(ADDITIONAL).and_then(|n| n.strip_suffix(".jinja"));
            if let Some(name) = name.filter(|n| !n.is_empty() && !n.contains('/'))
                && let Some(bytes) = read_whole(source, &file, MAX_BYTES).await?
            {
                files.additional.push((name.to_owned(), bytes));
            }
        }
        Ok(files)
    }

    /// Files with names go before `tokenizer_config.json`, and that before `chat_template.json`.
    pub(super) fn collect(&self) -> Result<Found, TextError> {
        let config = object(TOKENIZER_CONFIG, self.tokenizer_config.as_deref())?;
        let mut templates = BTreeMap::new();
        if let Some(bytes) = &self.jinja {
            templates.insert("default".to_owned(), utf8("chat_template.jinja", bytes)?);
        }
        for (name, bytes) in &self.additional {
            templates.insert(name.clone(), utf8(&format!("{ADDITIONAL}{name}.jinja"), bytes)?);
        }
        if templates.is_empty() {
            templates = stated(TOKENIZER_CONFIG, config.get("chat_template"))?;
        }
        if templates.is_empty() {
            let processor = object(PROCESSOR_TEMPLATE, self.processor.as_deref())?;
            templates = stated(PROCESSOR_TEMPLATE, processor.get("chat_template"))?;
        }
        let mut special = Map::new();
        gather(&config, &mut special);
        // With `added_tokens_decoder` everything stands in the configuration, and the older file does not count.
        if !config.contains_key("added_tokens_decoder") {
            gather(&object(SPECIAL_TOKENS_MAP, self.special_tokens_map.as_deref())?, &mut special);
        }
        Ok((templates, special))
    }
}

/// Special tokens: every `..._token`, and those that `extra_special_tokens` names.
fn gather(config: &Map<String, Json>, special: &mut Map<String, Json>) {
    let text = |value: &Json| value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned);
    for (name, value) in config {
        if let (true, Some(text)) = (name.ends_with("_token"), text(value)) {
            special.insert(name.clone(), Json::String(text));
        }
    }
    for (name, value) in config.get("extra_special_tokens").and_then(Json::as_object).into_iter().flatten() {
        if let Some(text) = text(value) {
            special.insert(name.clone(), Json::String(text));
        }
    }
}

/// A template, or templates with names.
fn stated(file: &'static str, value: Option<&Json>) -> Result<BTreeMap<String, String>, TextError> {
    let bad = |got: &Json, want| bad(file, "chat_template", got, want);
    let mut found = BTreeMap::new();
    match value {
        None | Some(Json::Null) => {}
        Some(Json::String(text)) => {
            found.insert("default".to_owned(), text.clone());
        }
        Some(Json::Array(list)) => {
            for entry in list {
                match (entry["name"].as_str(), entry["template"].as_str()) {
                    (Some(name), Some(text)) => found.insert(name.to_owned(), text.to_owned()),
                    _ => return Err(bad(entry, "a name and a template")),
                };
            }
        }
        Some(Json::Object(named)) => {
            for (name, text) in named {
                let text = text.as_str().ok_or_else(|| bad(text, "a template"))?;
                found.insert(name.clone(), text.to_owned());
            }
        }
        Some(other) => return Err(bad(other, "a string, a list or an object")),
    }
    Ok(found)
}

fn object(file: &'static str, bytes: Option<&[u8]>) -> Result<Map<String, Json>, TextError> {
    let Some(bytes) = bytes else { return Ok(Map::new()) };
    match json::parse(file, bytes).map_err(|e| TextError::Template { message: e.to_string() })? {
        Json::Object(config) => Ok(config),
        other => Err(bad(file, "top level", &other, "an object")),
    }
}

fn bad(file: &'static str, field: &str, got: &Json, want: &'static str) -> TextError {
    TextError::Config { file, field: field.to_owned(), got: json::excerpt(got), want }
}

fn utf8(file: &str, bytes: &[u8]) -> Result<String, TextError> {
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned).map_err(|e| TextError::Template { message: format!("{file}: {e}") })
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::checkpoint::source::{BoxFuture, MemorySource};
    use crate::testing::block_on;

    /// Files behind a URL: they can be asked for, not listed.
    #[derive(Debug)]
    struct Unlisted(MemorySource);

    impl ByteSource for Unlisted {
        fn read<'a>(&'a self, file: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Vec<u8>, LoadError>> {
            self.0.read(file, range)
        }

        fn size<'a>(&'a self, file: &'a str) -> BoxFuture<'a, Result<Option<u64>, LoadError>> {
            self.0.size(file)
        }
    }

    #[test]
    fn usual_names_are_found_without_a_list() {
        let source = || {
            MemorySource::new()
                .with("additional_chat_templates/tool_use.jinja", b"tools".to_vec())
                .with("additional_chat_templates/poem.jinja", b"verse".to_vec())
        };
        let names = |source: &dyn ByteSource| -> Vec<String> {
            let files = block_on(TemplateFiles::read(source)).expect("reads");
            files.additional.into_iter().map(|(name, _)| name).collect()
        };
        let with_default = || source().with("chat_template.jinja", b"chat".to_vec());
        assert_eq!(names(&with_default()), ["poem", "tool_use"]);
        assert_eq!(names(&Unlisted(with_default())), ["tool_use"]);
        // Without a file for the default one there are no others: nothing is asked for in vain.
        assert!(names(&Unlisted(source())).is_empty());
    }
}

//! Special tokens that stand beside `tokenizer.json`, merged as transformers 5 merges them.
//!
//! `added_tokens_decoder` of `tokenizer_config.json` goes before `special_tokens_map.json` and `added_tokens.json`, which
//! count only without it. Flags of the configuration replace those of `tokenizer.json`. A token that the vocabulary has
//! keeps its id there; another one gets the next id. `add_bos_token` and `add_eos_token` do not count where there is a
//! `tokenizer.json`: its post-processor says what is added.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::TextError;
use crate::checkpoint::format::json;

const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";
const ADDED: &str = "added_tokens.json";

/// Names that every tokenizer may have, in the order in which their tokens are added. Other names follow.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The files beside `tokenizer.json`.
#[derive(Debug, Default)]
pub(super) struct Declarations {
    /// `tokenizer_config.json`.
    pub config: Option<Value>,
    /// `special_tokens_map.json`.
    pub map: Option<Value>,
    /// `added_tokens.json`.
    pub added: Option<Value>,
}

/// What they add to the tokenizer.
#[derive(Debug, Default)]
pub(super) struct Declared {
    /// Tokens in the order in which they are added, with the id that the file gives them.
    pub tokens: Vec<(Option<u32>, AddedToken)>,
    /// The file that gives ids.
    pub file: &'static str,
    /// Texts of special tokens by name.
    pub named: BTreeMap<String, String>,
    /// Whether special tokens spelt out in a text are text.
    pub split: bool,
}

fn bad(file: &'static str, field: &str, got: &Value, want: &'static str) -> TextError {
    let got = json::excerpt(got);
    TextError::Config { file, field: field.to_owned(), got, want }
}

fn object<'a>(
    file: &'static str,
    value: Option<&'a Value>,
) -> Result<Option<&'a Map<String, Value>>, TextError> {
    let read = |v: &'a Value| v.as_object().ok_or_else(|| bad(file, "top level", v, "an object"));
    value.map(read).transpose()
}

/// A token as a text or as an object of its flags. `special` where the object does not say so.
fn token(value: &Value, special: bool) -> Option<AddedToken> {
    if let Some(text) = value.as_str() {
        return Some(AddedToken::from(text, true));
    }
    let text = value.get("content")?.as_str()?;
    let flag = |name: &str, default: bool| match value.get(name) {
        None | Some(Value::Null) => Some(default),
        Some(v) => v.as_bool(),
    };
    let special = flag("special", special)?;
    Some(
        AddedToken::from(text, special)
            .single_word(flag("single_word", false)?)
            .lstrip(flag("lstrip", false)?)
            .rstrip(flag("rstrip", false)?)
            .normalized(flag("normalized", !special)?),
    )
}

/// `added_tokens` of `tokenizer.json`; none if there are none or they are null.
///
/// # Errors
/// Another form.
pub(super) fn own(value: Option<Value>) -> Result<Vec<(u32, AddedToken)>, TextError> {
    const FILE: &str = super::FILE;
    let list = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(bad(FILE, "added_tokens", &other, "a list")),
    };
    let read = |v: &Value| {
        let id = v["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        id.zip(token(v, false)).ok_or_else(|| bad(FILE, "added_tokens", v, "an id, a content and flags"))
    };
    list.iter().map(read).collect()
}

/// Names and tokens, in order; a name that comes again replaces its token.
#[derive(Default)]
struct Named {
    list: Vec<(String, AddedToken)>,
    places: HashMap<String, usize>,
}

impl Named {
    fn set(&mut self, name: &str, token: AddedToken) {
        if let Some(&place) = self.places.get(name) {
            self.list[place].1 = token;
        } else {
            self.places.insert(name.to_owned(), self.list.len());
            self.list.push((name.to_owned(), token));
        }
    }

    fn tokens(&self) -> impl Iterator<Item = &AddedToken> {
        self.list.iter().map(|(_, token)| token)
    }

    /// Takes the fields that name a token: those that end in `_token` and are a text or a token.
    fn take(&mut self, file: &Map<String, Value>, special: bool) {
        for (name, value) in file.iter().filter(|(name, _)| name.ends_with("_token")) {
            if let Some(token) = token(value, special) {
                self.set(name, token);
            }
        }
    }
}

/// Tokens without a name, each once.
#[derive(Default)]
struct Others {
    list: Vec<AddedToken>,
    texts: HashSet<String>,
}

/// Tokens without a name, or with names of their own.
fn extra(
    file: &'static str,
    field: &str,
    value: Option<&Value>,
    named: &mut Named,
    others: &mut Others,
) -> Result<(), TextError> {
    let error = |v: &Value| bad(file, field, v, "a list of tokens");
    match value {
        None | Some(Value::Null) => {}
        Some(Value::Array(tokens)) => {
            for value in tokens {
                let token = token(value, true).ok_or_else(|| error(value))?;
                if others.texts.insert(token.content.clone()) {
                    others.list.push(token);
                }
            }
        }
        Some(Value::Object(tokens)) => {
            for (name, value) in tokens {
                named.set(name, token(value, true).ok_or_else(|| error(value))?);
            }
        }
        Some(other) => return Err(error(other)),
    }
    Ok(())
}

/// Tokens by id, as `tokenizer_config.json` lists them.
fn listed(value: &Value) -> Result<BTreeMap<u32, AddedToken>, TextError> {
    const FIELD: &str = "added_tokens_decoder";
    let tokens = value.as_object().ok_or_else(|| bad(CONFIG, FIELD, value, "an object of ids and tokens"))?;
    let read = |(id, v): (&String, &Value)| {
        let id = id.parse::<u32>().ok().filter(|_| v.is_object());
        id.zip(token(v, false)).ok_or_else(|| bad(CONFIG, FIELD, v, "a content and flags, under an id"))
    };
    tokens.iter().map(read).collect()
}

impl Declared {
    /// Merges the files with the tokens that `tokenizer.json` adds itself.
    ///
    /// # Errors
    /// Files of another form.
    pub fn read(files: &Declarations, own: &[(u32, AddedToken)]) -> Result<Self, TextError> {
        let empty = Map::new();
        let config = object(CONFIG, files.config.as_ref())?.unwrap_or(&empty);
        let (mut named, mut others) = (Named::default(), Others::default());
        named.take(config, false);
        let renamed = |fields: &Map<String, Value>| match fields.get("extra_special_tokens") {
            Some(Value::Array(list)) if list.is_empty() => "additional_special_tokens",
            None | Some(Value::Null) => "additional_special_tokens",
            Some(_) => "extra_special_tokens",
        };
        let field = renamed(config);
        extra(CONFIG, field, config.get(field), &mut named, &mut others)?;
        let list = config.get("added_tokens_decoder").filter(|v| !v.is_null());
        let (by_id, file) = match list {
            Some(list) => (listed(list)?, CONFIG),
            None => (Self::legacy(files, own, &mut named, &mut others)?, ADDED),
        };
        let mut tokens: Vec<(Option<u32>, AddedToken)> =
            by_id.into_iter().map(|(id, token)| (Some(id), token)).collect();
        let order = |name: &str| NAMES.iter().position(|known| *known == name).unwrap_or(NAMES.len());
        named.list.sort_by_key(|(name, _)| order(name));
        let own = own.iter().map(|(_, token)| token.content.clone());
        let mut known: HashSet<String> = own.chain(tokens.iter().map(|(_, t)| t.content.clone())).collect();
        for token in named.tokens().chain(&others.list) {
            if known.insert(token.content.clone()) {
                tokens.push((None, token.clone()));
            }
        }
        let texts: HashSet<&str> = named.tokens().map(|token| token.content.as_str()).collect();
        for (_, token) in &mut tokens {
            token.special |= texts.contains(token.content.as_str());
        }
        tokens.retain(|(_, token)| !token.content.is_empty());
        let split = config.get("split_special_tokens").and_then(Value::as_bool).unwrap_or(false);
        let named = named.list.into_iter().map(|(name, token)| (name, token.content)).collect();
        Ok(Self { tokens, file, named, split })
    }

    /// The files from before the configuration listed tokens.
    fn legacy(
        files: &Declarations,
        own: &[(u32, AddedToken)],
        named: &mut Named,
        others: &mut Others,
    ) -> Result<BTreeMap<u32, AddedToken>, TextError> {
        if let Some(map) = object(MAP, files.map.as_ref())? {
            named.take(map, true);
            extra(MAP, "extra_special_tokens", map.get("extra_special_tokens"), named, others)?;
            if others.list.is_empty() {
                let field = "additional_special_tokens";
                extra(MAP, field, map.get(field), named, others)?;
            }
        }
        let texts: HashSet<&String> = named.tokens().map(|token| &token.content).collect();
        let mut by_id = BTreeMap::new();
        for (text, id) in object(ADDED, files.added.as_ref())?.into_iter().flatten() {
            let special = texts.contains(text) || others.texts.contains(text);
            let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let number = number.ok_or_else(|| bad(ADDED, text, id, "a token id"))?;
            by_id.insert(number, AddedToken::from(text.as_str(), special));
        }
        by_id.extend(own.iter().cloned());
        Ok(by_id)
    }
}

//! Which tokens are special, and which end an answer: by metadata, by type and, as in llama.cpp, by spelling.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value, json};

use super::super::{Gguf, field};
use super::{Model, PREFIX};
use crate::LoadError;

/// `tokenizer.ggml.token_type`.
pub(super) const NORMAL: u64 = 1;
pub(super) const UNKNOWN: u64 = 2;
pub(super) const CONTROL: u64 = 3;
pub(super) const USER_DEFINED: u64 = 4;
pub(super) const UNUSED: u64 = 5;

/// Tokens that end an answer whatever type and id metadata give them.
const ENDS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Tokens that are shown as text although they are control tokens (gpt-oss).
const SHOWN: [&str; 4] = ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// A token around text to be filled in.
struct Fill {
    /// Names in metadata: `tokenizer.ggml.NAME_token_id`.
    names: &'static [&'static str],
    /// Spellings, where metadata are silent.
    spellings: &'static [&'static str],
    /// Whether it ends an answer.
    ends: bool,
}

const FILLS: [Fill; 6] = [
    Fill {
        names: &["fim_pre", "prefix"],
        spellings: &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
        ends: false,
    },
    Fill {
        names: &["fim_suf", "suffix"],
        spellings: &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
        ends: false,
    },
    Fill {
        names: &["fim_mid", "middle"],
        spellings: &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
        ends: false,
    },
    Fill {
        names: &["fim_pad"],
        spellings: &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
        ends: true,
    },
    Fill {
        names: &["fim_rep"],
        spellings: &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
        ends: true,
    },
    Fill { names: &["fim_sep"], spellings: &["<|file_sep|>"], ends: true },
];

/// Tokens with what is known of each.
pub(super) struct Vocabulary<'a> {
    /// Spellings.
    pub tokens: &'a [String],
    /// Types, as many.
    pub kinds: Vec<u64>,
    /// Tokens that end an answer.
    pub ends: Vec<u64>,
    /// Whether special tokens take the blanks behind them along.
    pub blanks_behind: bool,
}

impl Vocabulary<'_> {
    /// Tokens that are found in texts before anything else.
    pub fn added(&self) -> Vec<Value> {
        let mut seen = BTreeSet::new();
        let kinds = |&(id, _): &(usize, &String)| matches!(self.kinds[id], UNKNOWN | CONTROL | USER_DEFINED);
        let added = self.tokens.iter().enumerate().filter(|(_, t)| !t.is_empty()).filter(kinds);
        let entry = |(id, token): (usize, &String)| {
            let blanks = self.blanks_behind && !matches!(token.as_str(), "<unk>" | "<s>" | "<|endoftext|>");
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": blanks,
                "normalized": false, "special": self.kinds[id] != USER_DEFINED})
        };
        added.filter(|(_, token)| seen.insert(token.as_str())).map(entry).collect()
    }

    /// A model with ids by spelling, the first id where several have one; the others are spelt when they are decoded.
    pub fn model(
        &self,
        mut model: Value,
        spelling: impl Fn(usize, &str) -> String,
        keep: impl Fn(usize) -> bool,
    ) -> Value {
        let mut ids = Map::new();
        let mut others = Vec::new();
        for (id, token) in self.tokens.iter().enumerate() {
            if token.is_empty() || !keep(id) {
                continue;
            }
            let token = spelling(id, token);
            if ids.contains_key(&token) {
                others.push(json!([id, token]));
            } else {
                ids.insert(token, id.into());
            }
        }
        model["vocab"] = ids.into();
        if others.is_empty() {
            return model;
        }
        json!({"type": "Spelt", "spellings": others, "model": model})
    }
}

impl Gguf {
    /// Tokens and types; `None` without a list of tokens.
    pub(super) fn vocabulary(&self) -> Result<Option<Vocabulary<'_>>, LoadError> {
        let key = |name: &str| format!("{PREFIX}{name}");
        let Some(tokens) = self.texts(&key("tokens"))? else { return Ok(None) };
        let mut kinds = self.uints(&key("token_type"))?.unwrap_or_else(|| vec![NORMAL; tokens.len()]);
        if kinds.len() < tokens.len() {
            let want = format!("{} elements, as tokenizer.ggml.tokens", tokens.len());
            return Err(field(&self.file, &key("token_type"), kinds.len().to_string(), &want));
        }
        kinds.truncate(tokens.len());
        let ends = self.ends(tokens, &mut kinds)?;
        // No key says so. Phi 3's own tokenizer does it, and so does llama.cpp for models of that name.
        let name = self.text("general.name")?.unwrap_or_default().to_lowercase();
        let phi3 = self.text("general.architecture")? == Some("phi3")
            || name.contains("phi-3")
            || name.contains("phi3");
        let blanks_behind = phi3 && self.text(&key("model"))? == Some("llama");
        Ok(Some(Vocabulary { tokens, kinds, ends, blanks_behind }))
    }

    /// The id of a special token, which must be in the vocabulary; what llama.cpp takes where metadata are silent.
    pub(super) fn special(&self, name: &str, tokens: &[String]) -> Result<Option<u64>, LoadError> {
        let key = format!("{PREFIX}{name}_token_id");
        let within = |id: u64| id < tokens.len() as u64;
        if let Some(id) = self.uint(&key)? {
            if !within(id) {
                return Err(self.bad(&key, &format!("below {}, the number of tokens", tokens.len())));
            }
            return Ok(Some(id));
        }
        let model = self.text(&format!("{PREFIX}model"))?.and_then(Model::of);
        let default = match (model, name) {
            (Some(Model::SentencePiece), "unknown") | (Some(Model::WordPiece), "padding") => Some(0),
            (Some(Model::SentencePiece), "bos") => Some(1),
            (Some(Model::SentencePiece), "eos") => Some(2),
            (Some(Model::WordPiece), "bos") => Some(101),
            (Some(Model::WordPiece), "unknown") => Some(100),
            (Some(Model::WordPiece), "seperator") => Some(102),
            (Some(Model::WordPiece), "mask") => Some(103),
            _ => None,
        };
        Ok(default.filter(|&id| within(id)))
    }

    /// Tokens that end an answer. Some spellings decide about types, too.
    fn ends(&self, tokens: &[String], kinds: &mut [u64]) -> Result<Vec<u64>, LoadError> {
        let mut ids: HashMap<&str, Vec<usize>> = HashMap::new();
        for (id, token) in tokens.iter().enumerate() {
            if token.len() < 64 && token.starts_with(['<', '[', '_', '▁']) {
                ids.entry(token).or_default().push(id);
            }
        }
        let of = |spelling: &str| ids.get(spelling).map(Vec::as_slice).unwrap_or_default();
        let mut ends: Vec<u64> = Vec::new();
        for name in ["eos", "eot", "eom"] {
            ends.extend(self.special(name, tokens)?);
        }
        let key = format!("{PREFIX}eos_token_ids");
        for id in self.uints(&key)?.unwrap_or_default() {
            if id >= tokens.len() as u64 {
                return Err(self.bad(&key, &format!("ids below {}, the number of tokens", tokens.len())));
            }
            ends.push(id);
        }
        for fill in FILLS {
            let mut id = None;
            for name in fill.names {
                id = id.or(self.special(name, tokens)?);
            }
            let spelt = || fill.spellings.iter().find_map(|s| of(s).first().copied());
            let id = match id {
                Some(id) => Some(id),
                None => spelt().map(|id| {
                    kinds[id] = CONTROL;
                    id as u64
                }),
            };
            if fill.ends {
                ends.extend(id);
            }
        }
        for spelling in ENDS {
            for &id in of(spelling) {
                kinds[id] = CONTROL;
                ends.push(id as u64);
            }
        }
        for spelling in SHOWN {
            for &id in of(spelling) {
                kinds[id] = USER_DEFINED;
            }
        }
        let mut seen = BTreeSet::new();
        ends.retain(|id| seen.insert(*id));
        let mut strike = |spelling: &str, kind: u64| {
            for &id in of(spelling) {
                if let Some(at) = ends.iter().position(|&end| end == id as u64) {
                    ends.remove(at);
                    kinds[id] = kind;
                }
            }
        };
        let has = |spelling: &str| !of(spelling).is_empty();
        // Formats in which several messages make an answer.
        let calls = has("<|call|>") || has("<|calls|>");
        if calls && (has("<|return|>") || has("<|flush|>")) {
            strike("<|end|>", USER_DEFINED);
        }
        if has("<|tool_response>") {
            strike("</s>", NORMAL);
        }
        Ok(ends)
    }

    /// Beginnings and ends of texts, as `config.json` has them.
    pub(in super::super) fn special_tokens(&self) -> Result<Map<String, Value>, LoadError> {
        let mut c = Map::new();
        let v = self.vocabulary()?;
        let tokens = v.as_ref().map(|v| v.tokens);
        let id = |name: &str| match tokens {
            Some(tokens) => self.special(name, tokens),
            None => self.uint(&format!("{PREFIX}{name}_token_id")),
        };
        for (name, ggml) in [("bos_token_id", "bos"), ("pad_token_id", "padding")] {
            if let Some(id) = id(ggml)? {
                c.insert(name.to_owned(), id.into());
            }
        }
        let ends = match v {
            Some(v) => v.ends,
            None => id("eos")?.into_iter().collect(),
        };
        if !ends.is_empty() {
            c.insert("eos_token_id".to_owned(), ends.into());
        }
        Ok(c)
    }
}

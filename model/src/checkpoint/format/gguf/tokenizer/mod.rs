//! Metadata → `tokenizer.json` and `tokenizer_config.json`.
//!
//! Files hold tokens and merges (byte-level BPE) or scores (SentencePiece), and only the name of the rules by which
//! texts are split first; the rules themselves are llama.cpp's and those of the models' own tokenizers.

mod byte_level;
mod rules;
mod sentence_piece;
mod special;
mod word_piece;

use serde_json::{Map, Value, json};

use super::Gguf;
use crate::LoadError;

const PREFIX: &str = "tokenizer.ggml.";

/// `tokenizer.ggml.model`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Model {
    ByteLevel,
    SentencePiece,
    WordPiece,
}

impl Model {
    fn of(name: &str) -> Option<Self> {
        match name {
            "gpt2" => Some(Self::ByteLevel),
            "llama" => Some(Self::SentencePiece),
            "bert" => Some(Self::WordPiece),
            _ => None,
        }
    }
}

impl Gguf {
    /// The `tokenizer.json` that says the same as the metadata; `None` for files without a tokenizer.
    pub(super) fn tokenizer(&self) -> Result<Option<Value>, LoadError> {
        let key = |name: &str| format!("{PREFIX}{name}");
        let model = match self.text(&key("model"))? {
            None | Some("none" | "no_vocab") => return Ok(None),
            Some(name) => Model::of(name).ok_or_else(|| {
                self.bad(&key("model"), "gpt2, llama or bert (others are not supported yet)")
            })?,
        };
        let v = self.vocabulary()?.ok_or_else(|| self.bad(&key("tokens"), "a list of texts"))?;
        let tokens = v.tokens;
        let spelling = |id: u64| tokens.get(id as usize).cloned().unwrap_or_default();
        let (parts, bos) = match model {
            Model::ByteLevel => {
                let rule = self.rule()?;
                (self.byte_level(&v, rule)?, rule.bos)
            }
            Model::SentencePiece => (self.sentence_piece(&v)?, true),
            Model::WordPiece => (self.word_piece(&v)?, true),
        };
        let mut before = Vec::new();
        let mut after = Vec::new();
        if model == Model::WordPiece {
            let cls = self.special("cls", tokens)?.or(self.special("bos", tokens)?);
            before.extend(cls);
            // The misspelt key is the one that is in use.
            let sep = [self.special("seperator", tokens)?, self.special("separator", tokens)?];
            after.extend(sep.into_iter().flatten().next().or(self.special("eos", tokens)?));
        } else {
            if self.flag(&key("add_bos_token"))?.unwrap_or(bos) {
                before.extend(self.special("bos", tokens)?);
            }
            if self.flag(&key("add_eos_token"))?.unwrap_or(false) {
                after.extend(self.special("eos", tokens)?);
            }
        }
        let special =
            |id: &u64, segment: u32| json!({"SpecialToken": {"id": spelling(*id), "type_id": segment}});
        let one = |sequence: &str, segment: u32, before: &[u64]| {
            let mut list: Vec<Value> = before.iter().map(|id| special(id, segment)).collect();
            list.push(json!({"Sequence": {"id": sequence, "type_id": segment}}));
            list.extend(after.iter().map(|id| special(id, segment)));
            list
        };
        let single = one("A", 0, &before);
        let second = if model == Model::WordPiece { one("B", 1, &[]) } else { one("B", 0, &before) };
        let pair = [single.clone(), second].concat();
        let known = before
            .iter()
            .chain(&after)
            .map(|id| (spelling(*id), json!({"id": spelling(*id), "ids": [id], "tokens": [spelling(*id)]})));
        let known: Map<String, Value> = known.collect();
        let post = (!known.is_empty()).then(
            || json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": known}),
        );
        let mut out = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": v.added(),
            "post_processor": post});
        if let (Value::Object(out), Value::Object(parts)) = (&mut out, parts) {
            out.extend(parts);
        }
        Ok(Some(out))
    }

    /// The `tokenizer_config.json` that says the same as the metadata: special tokens and chat templates.
    pub(super) fn tokenizer_config(&self) -> Result<Value, LoadError> {
        const TEMPLATE: &str = "tokenizer.chat_template";
        let mut out = Map::new();
        let tokens = self.texts(&format!("{PREFIX}tokens"))?.unwrap_or_default();
        for (name, ggml) in [
            ("bos_token", "bos"),
            ("eos_token", "eos"),
            ("unk_token", "unknown"),
            ("pad_token", "padding"),
            ("cls_token", "cls"),
            ("sep_token", "seperator"),
            ("mask_token", "mask"),
        ] {
            if let Some(id) = self.special(ggml, tokens)? {
                out.insert(name.to_owned(), json!(tokens[id as usize]));
            }
        }
        // Metadata always say whether texts are closed: nothing is to be guessed.
        let closed = self.flag(&format!("{PREFIX}add_eos_token"))?.unwrap_or(false);
        out.insert("add_eos_token".to_owned(), closed.into());
        let mut templates = Vec::new();
        if let Some(text) = self.text(TEMPLATE)? {
            templates.push(json!({"name": "default", "template": text}));
        }
        for name in self.texts(&format!("{TEMPLATE}s"))?.unwrap_or_default() {
            if let Some(text) = self.text(&format!("{TEMPLATE}.{name}"))? {
                templates.push(json!({"name": name, "template": text}));
            }
        }
        if !templates.is_empty() {
            out.insert("chat_template".to_owned(), templates.into());
        }
        Ok(Value::Object(out))
    }
}

//! `gpt2`: byte-level BPE.

use serde_json::{Value, json};

use super::super::Gguf;
use super::PREFIX;
use super::rules::{RULES, Rule};
use super::special::{UNUSED, Vocabulary};
use crate::LoadError;

impl Gguf {
    /// By which rule texts are split.
    pub(super) fn rule(&self) -> Result<&'static Rule, LoadError> {
        let key = format!("{PREFIX}pre");
        let name = self.text(&key)?.unwrap_or_else(|| {
            tracing::warn!("{}: {key} is absent: texts are split by llama.cpp's default rule", self.file);
            "default"
        });
        RULES.iter().find(|r| r.names.contains(&name)).ok_or_else(|| {
            let known: Vec<&str> = RULES.iter().flat_map(|r| r.names).copied().collect();
            self.bad(&key, &format!("one of {}", known.join(", ")))
        })
    }

    pub(super) fn byte_level(&self, v: &Vocabulary<'_>, rule: &Rule) -> Result<Value, LoadError> {
        let mut splits: Vec<Value> = rule
            .patterns
            .iter()
            .map(|p| json!({"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": false}))
            .collect();
        let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
        splits.push(byte_level(rule.gpt2));
        let key = format!("{PREFIX}merges");
        let merges = self.texts(&key)?.ok_or_else(|| self.bad(&key, "a list of texts"))?;
        let pair = |merge: &String| {
            let space = merge.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(i, _)| i);
            space.map(|i| json!([merge[..i], merge[i + 1..]]))
        };
        let pairs: Option<Vec<Value>> = merges.iter().map(pair).collect();
        let pairs = pairs.ok_or_else(|| self.bad(&key, "pairs of tokens with a space between them"))?;
        let model = json!({"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": rule.ignore_merges, "merges": pairs});
        let model = v.model(model, |_, token| token.to_owned(), |id| v.kinds[id] != UNUSED);
        Ok(json!({"normalizer": rule.nfc.then(|| json!({"type": "NFC"})),
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": splits},
            "decoder": byte_level(true), "model": model}))
    }
}

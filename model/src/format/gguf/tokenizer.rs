//! Metadata → `tokenizer.json` and `tokenizer_config.json`.
//!
//! Files hold tokens and merges (byte-level BPE) or scores (SentencePiece), and only the name of the rules by which
//! texts are split first; the rules themselves are llama.cpp's and those of the models' own tokenizers.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{Gguf, field};
use crate::LoadError;

/// `tokenizer.ggml.token_type`.
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const UNUSED: u64 = 5;

const PREFIX: &str = "tokenizer.ggml.";

/// Splits of a text before BPE.
#[derive(Clone, Copy, Debug)]
struct Rule {
    /// Values of `tokenizer.ggml.pre`.
    names: &'static [&'static str],
    /// Patterns, one after the other; behind them GPT-2's own if `gpt2`.
    patterns: &'static [&'static str],
    /// GPT-2's pattern, which the byte-level step brings along.
    gpt2: bool,
    /// Whether the text is put into the composed form NFC.
    nfc: bool,
    /// Whether a piece that is a token as a whole becomes it, whatever the merges say.
    ignore_merges: bool,
    /// Whether texts begin with the begin-of-text token where metadata are silent.
    bos: bool,
}

const PLAIN: Rule =
    Rule { names: &[], patterns: &[], gpt2: false, nfc: false, ignore_merges: false, bos: false };

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const RULES: [Rule; 10] = [
    // llama.cpp's rule for files that name none.
    Rule {
        names: &["default"],
        patterns: &[
            r"[\p{P}\$\+<=>\^~\|]+",
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
            r"\p{N}+",
            "[0-9][0-9][0-9]",
        ],
        ..PLAIN
    },
    Rule {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"],
        patterns: &[LLAMA3],
        ignore_merges: true,
        bos: true,
        ..PLAIN
    },
    Rule { names: &["dbrx", "glm4", "chatglm-bpe", "smaug-bpe"], patterns: &[LLAMA3], ..PLAIN },
    Rule {
        names: &["qwen2", "stablelm2", "deepseek-r1-qwen", "megrez"],
        patterns: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        nfc: true,
        ..PLAIN
    },
    Rule {
        names: &["gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "roberta-bpe", "exaone4"],
        gpt2: true,
        ..PLAIN
    },
    Rule {
        names: &["smollm", "starcoder", "refact", "codeshell"],
        patterns: &[r"\p{N}"],
        gpt2: true,
        ..PLAIN
    },
    Rule { names: &["command-r"], patterns: &[r"\p{N}"], gpt2: true, nfc: true, bos: true, ..PLAIN },
    Rule {
        names: &["gpt-4o", "llama4"],
        patterns: &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ..PLAIN
    },
    Rule {
        names: &["tekken"],
        patterns: &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignore_merges: true,
        bos: true,
        ..PLAIN
    },
    Rule {
        names: &["deepseek-v3"],
        patterns: &[
            r"\p{N}{1,3}",
            "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
        ],
        bos: true,
        ..PLAIN
    },
];

/// Tokens with what is known of each.
struct Vocabulary<'a> {
    tokens: &'a [String],
    kinds: Vec<u64>,
}

impl Vocabulary<'_> {
    fn kind(&self, id: usize) -> u64 {
        self.kinds.get(id).copied().unwrap_or(1)
    }

    /// Tokens that are found in texts before anything else.
    fn added(&self) -> Vec<Value> {
        let kinds = |&(id, _): &(usize, &String)| matches!(self.kind(id), UNKNOWN | CONTROL | USER_DEFINED);
        let added = self.tokens.iter().enumerate().filter(|(_, t)| !t.is_empty()).filter(kinds);
        let entry = |(id, token): (usize, &String)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": self.kind(id) != USER_DEFINED})
        };
        added.map(entry).collect()
    }

    fn map(&self, spelling: impl Fn(&str) -> String, keep: impl Fn(usize) -> bool) -> Map<String, Value> {
        let kept = self.tokens.iter().enumerate().filter(|(id, _)| keep(*id));
        kept.map(|(id, token)| (spelling(token), id.into())).collect()
    }
}

impl Gguf {
    /// The id of a special token, which must be in the vocabulary.
    fn special(&self, name: &str, tokens: &[String]) -> Result<Option<u64>, LoadError> {
        let key = format!("{PREFIX}{name}_token_id");
        match self.uint(&key)? {
            Some(id) if id >= tokens.len() as u64 => {
                Err(self.bad(&key, &format!("below {}, the number of tokens", tokens.len())))
            }
            id => Ok(id),
        }
    }

    /// The `tokenizer.json` that says the same as the metadata; `None` for files without a tokenizer.
    pub(super) fn tokenizer(&self) -> Result<Option<Value>, LoadError> {
        let key = |name: &str| format!("{PREFIX}{name}");
        let model = match self.text(&key("model"))? {
            None | Some("none" | "no_vocab") => return Ok(None),
            Some(model @ ("gpt2" | "llama" | "bert")) => model,
            Some(_) => {
                return Err(self.bad(&key("model"), "gpt2, llama or bert (others are not supported yet)"));
            }
        };
        let tokens =
            self.texts(&key("tokens"))?.ok_or_else(|| self.bad(&key("tokens"), "a list of texts"))?;
        let kinds = self.uints(&key("token_type"))?.unwrap_or_default();
        if !kinds.is_empty() && kinds.len() != tokens.len() {
            let want = format!("{} elements, as tokenizer.ggml.tokens", tokens.len());
            return Err(field(&self.file, &key("token_type"), kinds.len().to_string(), &want));
        }
        let v = Vocabulary { tokens, kinds };
        let spelling = |id: u64| tokens.get(id as usize).cloned().unwrap_or_default();
        let (parts, bos) = match model {
            "gpt2" => self.byte_level(&v)?,
            "llama" => {
                (self.sentence_piece(&v, &spelling(self.special("unknown", tokens)?.unwrap_or(0)))?, true)
            }
            _ => (self.word_piece(&v)?, true),
        };
        let mut before = Vec::new();
        let mut after = Vec::new();
        if model == "bert" {
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
        let second = if model == "bert" { one("B", 1, &[]) } else { one("B", 0, &before) };
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

    fn byte_level(&self, v: &Vocabulary<'_>) -> Result<(Value, bool), LoadError> {
        let key = format!("{PREFIX}pre");
        let name = self.text(&key)?.unwrap_or_else(|| {
            tracing::warn!("{}: {key} is absent: texts are split by llama.cpp's default rule", self.file);
            "default"
        });
        let Some(rule) = RULES.iter().find(|r| r.names.contains(&name)) else {
            let known: Vec<&str> = RULES.iter().flat_map(|r| r.names).copied().collect();
            return Err(self.bad(&key, &format!("one of {}", known.join(", "))));
        };
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
            "ignore_merges": rule.ignore_merges,
            "vocab": v.map(str::to_owned, |id| v.kind(id) != UNUSED), "merges": pairs});
        let parts = json!({"normalizer": rule.nfc.then(|| json!({"type": "NFC"})),
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": splits},
            "decoder": byte_level(true), "model": model});
        Ok((parts, rule.bos))
    }

    /// SentencePiece joins the two neighbours whose joint piece has the highest score: merges in the order of their
    /// scores do the same.
    fn sentence_piece(&self, v: &Vocabulary<'_>, unknown: &str) -> Result<Value, LoadError> {
        let key = format!("{PREFIX}scores");
        let scores = self.floats(&key)?.ok_or_else(|| self.bad(&key, "a list of numbers"))?;
        if scores.len() != v.tokens.len() {
            let want = format!("{} elements, as tokenizer.ggml.tokens", v.tokens.len());
            return Err(field(&self.file, &key, scores.len().to_string(), &want));
        }
        let ids: HashMap<&str, usize> =
            v.tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
        let mut merges: Vec<(f64, &str, &str)> = Vec::new();
        for (id, token) in v.tokens.iter().enumerate() {
            // Longer pieces would need time by the square of their length; none is published.
            if token.len() > 512 || !matches!(v.kind(id), 1 | USER_DEFINED) {
                continue;
            }
            let mut ways: Vec<(usize, usize, &str, &str)> = token
                .char_indices()
                .skip(1)
                .filter_map(|(at, _)| {
                    let (left, right) = token.split_at(at);
                    Some((*ids.get(left)?, *ids.get(right)?, left, right))
                })
                .collect();
            ways.sort_unstable();
            merges.extend(ways.into_iter().map(|(_, _, left, right)| (scores[id], left, right)));
        }
        let chars = |s: &str| s.chars().count();
        merges.sort_by(|a, b| {
            b.0.total_cmp(&a.0).then(chars(b.1).cmp(&chars(a.1))).then(chars(b.2).cmp(&chars(a.2)))
        });
        let merges: Vec<Value> = merges.into_iter().map(|(_, left, right)| json!([left, right])).collect();
        let model = json!({"type": "BPE", "dropout": null, "unk_token": unknown,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
            "byte_fallback": true, "ignore_merges": false,
            "vocab": v.map(str::to_owned, |_| true), "merges": merges});
        let space = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let mut normalizers = vec![space];
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if self.flag(&format!("{PREFIX}add_space_prefix"))?.unwrap_or(true) {
            normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        Ok(json!({"normalizer": {"type": "Sequence", "normalizers": normalizers}, "pre_tokenizer": null,
            "decoder": {"type": "Sequence", "decoders": decoders}, "model": model}))
    }

    /// Files mark the beginnings of words; WordPiece marks what continues them.
    fn word_piece(&self, v: &Vocabulary<'_>) -> Result<Value, LoadError> {
        let marked = v.tokens.iter().any(|t| t.starts_with('▁'));
        let spelling = |token: &str| match token.strip_prefix('▁') {
            Some(word) => word.to_owned(),
            None if !marked || (token.starts_with('[') && token.ends_with(']')) => token.to_owned(),
            None => format!("##{token}"),
        };
        let unknown = self.special("unknown", v.tokens)?.and_then(|id| v.tokens.get(id as usize));
        let model = json!({"type": "WordPiece", "unk_token": unknown.map_or("[UNK]", String::as_str),
            "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": v.map(spelling, |_| true)});
        Ok(json!({
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true}, "model": model}))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// llama.cpp gives both one pattern, and only one of them the rest of Llama 3's rules.
    #[test]
    fn rules_that_share_a_pattern_only() {
        let rule = |name: &str| RULES.iter().find(|r| r.names.contains(&name)).expect(name);
        let (llama, smaug) = (rule("llama-bpe"), rule("smaug-bpe"));
        assert_eq!(llama.patterns, smaug.patterns);
        assert_eq!((llama.ignore_merges, llama.bos), (true, true));
        assert_eq!((smaug.ignore_merges, smaug.bos), (false, false));
    }
}

//! What a `tokenizer.json` must not say: the crate `tokenizers` trusts its files where a part is built or used, and
//! panics, loops or fills the memory. Published files are far from these bounds.

use serde_json::{Map, Value};

use super::{charsmap, regex};

/// Ids below this.
const MAX_ID: u64 = 1 << 31;
/// Bytes of all tokens that are kept in a trie.
const MAX_TRIE: usize = 8 << 20;
/// Bytes of one token in a trie: freeing a trie takes a stack as deep as its longest token.
const MAX_DEPTH: usize = 512;
/// Parts of a pipeline (normalizers, pre-tokenizers, decoders, post-processors) at most.
const MAX_PARTS: usize = 64;
/// How much longer a pipeline can make a text.
const MAX_GROWTH: f64 = 4096.0;
/// Bytes of a text that is put in front or in the place of another.
const MAX_TEXT: usize = 64;
/// Bytes of a regular expression.
const MAX_REGEX: usize = 8192;
/// Pieces of a post-processor's template, and tokens of a special token in it.
const MAX_PIECES: usize = 64;

type Check = Result<(), String>;

/// Checks a whole `tokenizer.json`.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn tokenizer(value: &Value) -> Check {
    let parts = value.as_object().ok_or("must be an object")?;
    let added = parts.get("added_tokens").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let bytes = added.iter().filter_map(|t| t["content"].as_str()).map(str::len).sum();
    at_most("added_tokens: bytes", bytes, MAX_TRIE)?;
    model(parts.get("model").unwrap_or(&Value::Null))?;
    for stage in ["normalizer", "pre_tokenizer", "decoder", "post_processor"] {
        let mut pipeline = Pipeline { stage, parts: 0, growth: 1.0, framing: 0 };
        pipeline.part(parts.get(stage).unwrap_or(&Value::Null)).map_err(|e| format!("{stage}: {e}"))?;
    }
    Ok(())
}

fn at_most(what: &str, got: usize, limit: usize) -> Check {
    if got > limit { Err(format!("{what}: {got}, must be at most {limit}")) } else { Ok(()) }
}

fn text<'a>(part: &'a Map<String, Value>, field: &str) -> &'a str {
    part.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn model(value: &Value) -> Check {
    let part = value.as_object().ok_or("model: must be an object")?;
    if let Some(inner @ Value::Object(_)) = part.get("model") {
        return model(inner);
    }
    let mut longest = 0;
    match part.get("vocab") {
        Some(Value::Object(vocab)) => {
            for (token, id) in vocab {
                longest = longest.max(token.len());
                if id.as_u64().is_none_or(|id| id >= MAX_ID) {
                    return Err(format!(
                        "model: the id of {token:?} is {id}, must be a number below {MAX_ID}"
                    ));
                }
            }
        }
        Some(Value::Array(vocab)) => {
            let lengths = || vocab.iter().filter_map(|entry| entry[0].as_str()).map(str::len);
            at_most("model: bytes of all tokens", lengths().sum(), MAX_TRIE)?;
            at_most("model: bytes of a token", lengths().max().unwrap_or(0), MAX_DEPTH)?;
        }
        _ => {}
    }
    let merges = part.get("merges").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let prefix = text(part, "continuing_subword_prefix").len();
    for merge in merges {
        let pair = match merge {
            Value::String(pair) => pair.split_once(' '),
            pair => pair[0].as_str().zip(pair[1].as_str()),
        };
        // What is no pair is refused later.
        let Some((a, b)) = pair else { continue };
        // Both parts are joined in a buffer of the longest token, without the prefix of the second.
        let fits = b.is_char_boundary(prefix) && b.len() >= prefix && a.len() + b.len() - prefix <= longest;
        if !fits {
            return Err(format!(
                "model: {a:?} and {b:?} are merged to a token that is not in the vocabulary"
            ));
        }
    }
    Ok(())
}

/// Parts that work one after the other.
struct Pipeline {
    stage: &'static str,
    parts: usize,
    growth: f64,
    /// Post-processors that add tokens.
    framing: usize,
}

impl Pipeline {
    fn part(&mut self, value: &Value) -> Check {
        let Some(part) = value.as_object() else {
            return if value.is_null() { Ok(()) } else { Err("must be an object".into()) };
        };
        self.parts += 1;
        at_most("parts", self.parts, MAX_PARTS)?;
        for list in ["normalizers", "pretokenizers", "decoders", "processors"] {
            for part in part.get(list).and_then(Value::as_array).into_iter().flatten() {
                self.part(part)?;
            }
        }
        if let Some(pattern) = part.get("pattern") {
            self.pattern(part, pattern)?;
        }
        if let Some(map) = part.get("precompiled_charsmap") {
            let map = map.as_str().ok_or("precompiled_charsmap: must be a string")?;
            let longest = charsmap::longest(map).map_err(|e| format!("precompiled_charsmap: {e}"))?;
            self.grow(longest as f64)?;
        }
        for field in ["prepend", "prefix", "suffix"] {
            at_most(&format!("bytes of {field}"), text(part, field).len(), MAX_TEXT)?;
        }
        // The crate takes a part without a type it knows for the first one that has its fields.
        let has = |field: &str| part.contains_key(field);
        let number = |field: &str| part.get(field).and_then(Value::as_u64);
        // The crate takes {"Precompiled": null} for "Precompiled": checks by type would pass it over.
        if part.get("type").is_some_and(|kind| !kind.is_string()) {
            return Err("type: must be a string".into());
        }
        let kind = text(part, "type");
        if kind == "Precompiled" && !has("precompiled_charsmap") {
            return Err("precompiled_charsmap: must be there".into());
        }
        if part.get("prepend").is_some_and(|v| v == "") {
            return Err("prepend: must not be empty".into());
        }
        match self.stage {
            "normalizer" if kind == "ByteLevel" => self.grow(2.0),
            "pre_tokenizer" if kind == "ByteLevel" || has("add_prefix_space") => self.grow(2.0),
            "pre_tokenizer" if number("length") == Some(0) => {
                Err("FixedLength: length is 0, must be at least 1".into())
            }
            // The crate counts from the end of texts that may be shorter.
            "decoder" if number("stop").is_some_and(|n| n > 0) => Err("Strip: stop must be 0".into()),
            "decoder" if kind == "CTC" || has("word_delimiter_token") => {
                Err("CTC is for speech, not for texts".into())
            }
            "decoder" if has("suffix") && text(part, "suffix").is_empty() => self.grow(2.0),
            "post_processor" if ["single", "pair", "special_tokens", "sep", "cls"].iter().any(|f| has(f)) => {
                self.framing += 1;
                if self.framing > 1 {
                    return Err("must have one processor that adds tokens".into());
                }
                template(part)
            }
            _ => Ok(()),
        }
    }

    fn grow(&mut self, factor: f64) -> Check {
        self.growth *= factor.max(1.0);
        if self.growth > MAX_GROWTH {
            return Err(format!("makes texts {:.0} times longer, must be at most {MAX_GROWTH}", self.growth));
        }
        Ok(())
    }

    fn pattern(&mut self, part: &Map<String, Value>, pattern: &Value) -> Check {
        let content = text(part, "content");
        at_most("bytes of content", content.len(), MAX_TEXT)?;
        let new = content.chars().count() as f64;
        match (pattern.get("Regex").and_then(Value::as_str), pattern.get("String").and_then(Value::as_str)) {
            (Some(pattern), _) => {
                at_most("bytes of a regular expression", pattern.len(), MAX_REGEX)?;
                regex::repeats(pattern)?;
                match regex::least(pattern) {
                    // The crate looks for the character behind the end.
                    0 if self.stage == "normalizer" && new > 0.0 => {
                        Err(format!("{pattern:?} must match at least one character"))
                    }
                    0 => self.grow(new + 1.0),
                    least => self.grow(new / least as f64),
                }
            }
            (None, Some(old)) => self.grow(new / old.chars().count().max(1) as f64),
            (None, None) => Ok(()),
        }
    }
}

fn template(part: &Map<String, Value>) -> Check {
    let known = part.get("special_tokens").and_then(Value::as_object);
    for (name, token) in known.into_iter().flatten() {
        let len = |field: &str| token[field].as_array().map_or(0, Vec::len);
        at_most("ids of a special token", len("ids"), MAX_PIECES)?;
        if len("ids") != len("tokens") {
            return Err(format!(
                "{name:?} has {} ids and {} tokens, must be as many",
                len("ids"),
                len("tokens")
            ));
        }
    }
    for field in ["single", "pair"] {
        let pieces = part.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        at_most(&format!("pieces of {field}"), pieces.len(), MAX_PIECES)?;
        for piece in pieces {
            let id = piece["SpecialToken"]["id"].as_str();
            if let Some(id) = id.filter(|id| known.is_none_or(|known| !known.contains_key(*id))) {
                return Err(format!("{field} has the token {id:?}, which special_tokens lacks"));
            }
            if field == "single" && piece["Sequence"]["id"] == "B" {
                return Err("single has the sequence B, must have A alone".into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::TextError;
    use crate::text::tokenizer::Tokenizer;

    /// A tokenizer with a part of its own in some place.
    fn with(place: &str, part: &str) -> Result<Tokenizer, TextError> {
        let mut value =
            serde_json::json!({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": []}});
        value[place] = serde_json::from_str(part).expect(part);
        Tokenizer::from_bytes(value.to_string().as_bytes())
    }

    fn refused(place: &str, part: &str, word: &str) {
        let error = with(place, part).expect_err(part);
        assert!(matches!(&error, TextError::Tokenizer { .. }), "{error:?}");
        assert!(error.to_string().contains(word), "{part}: {error}");
    }

    fn many(part: &str, count: usize) -> String {
        vec![part; count].join(",")
    }

    #[test]
    fn models_that_the_crate_trusts() {
        let merged = "merged to a token";
        refused("model", r#"{"type": "BPE", "vocab": {"a": 0, "ab": 1}, "merges": ["ab ab"]}"#, merged);
        refused("model", r#"{"type": "BPE", "vocab": {"a": 0, "ab": 1}, "merges": [["ab", "a"]]}"#, merged);
        let short = r#"{"type": "BPE", "continuing_subword_prefix": "++++", "vocab": {"a": 0, "b": 1}, "merges": ["a b"]}"#;
        refused("model", short, merged);
        let split = r#"{"type": "BPE", "continuing_subword_prefix": "+", "vocab": {"a": 0, "é": 1}, "merges": ["a é"]}"#;
        refused("model", split, merged);
        refused("model", r#"{"vocab": {"a": 4294967295}, "merges": []}"#, "must be a number below");
        refused("model", r#"{"vocab": {"a": -1}, "merges": []}"#, "must be a number below");
        refused("model", "3", "must be an object");
        let unigram = |length: usize, count: usize| {
            let list = many(&format!("[\"{}\", 0]", "x".repeat(length)), count);
            format!(r#"{{"type": "Unigram", "unk_id": 0, "vocab": [{list}]}}"#)
        };
        refused("model", &unigram(1 << 20, 9), "bytes of all tokens");
        refused("model", &unigram(513, 1), "bytes of a token");
        with("model", &unigram(512, 1)).expect("the longest token");
        // An old file does not say what its model is.
        let old = with("model", r#"{"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}"#).expect("BPE");
        assert_eq!(old.encode("ab", false).expect("encodes"), [2]);
    }

    #[test]
    fn parts_that_panic() {
        for (place, part, word) in [
            ("decoder", r#"{"type": "Strip", "content": " ", "start": 1, "stop": 1}"#, "stop must be 0"),
            (
                "decoder",
                r#"{"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": true}"#,
                "speech",
            ),
            ("pre_tokenizer", r#"{"type": "FixedLength", "length": 0}"#, "at least 1"),
            ("normalizer", r#"{"type": "Prepend", "prepend": ""}"#, "must not be empty"),
            ("normalizer", r#"{"type": "Precompiled"}"#, "must be there"),
            ("normalizer", r#"{"type": {"Precompiled": null}}"#, "type: must be a string"),
            ("normalizer", r#"{"type": "Precompiled", "precompiled_charsmap": "x"}"#, "base64"),
            ("normalizer", r#"{"type": "Precompiled", "precompiled_charsmap": "////fw=="}"#, "trie of"),
            ("normalizer", r#"{"type": "Precompiled", "precompiled_charsmap": 3}"#, "must be a string"),
        ] {
            refused(place, part, word);
        }
        let template = |single: &str, tokens: &str| {
            format!(
                r#"{{"type": "TemplateProcessing", "single": [{single}], "pair": [], "special_tokens": {{{tokens}}}}}"#
            )
        };
        let a = r#"{"Sequence": {"id": "A", "type_id": 0}}"#;
        let s = r#"{"SpecialToken": {"id": "s", "type_id": 0}}"#;
        let token = r#""s": {"id": "s", "ids": [1], "tokens": ["s"]}"#;
        let good = template(&format!("{s},{a}"), token);
        let encoded = with("post_processor", &good).expect("a template").encode("a", true);
        assert_eq!(encoded.expect("encodes"), [1, 0]);
        let b = r#"{"Sequence": {"id": "B", "type_id": 0}}"#;
        refused("post_processor", &template(b, ""), "sequence B");
        refused("post_processor", &template(s, ""), "special_tokens lacks");
        refused(
            "post_processor",
            &template(s, r#""s": {"id": "s", "ids": [1, 2], "tokens": ["s"]}"#),
            "2 ids",
        );
        refused("post_processor", &template(&many(a, 65), ""), "pieces of single");
        let untyped = template(s, "").replace("TemplateProcessing", "Unknown");
        refused("post_processor", &untyped, "special_tokens lacks");
        let twice = format!(r#"{{"type": "Sequence", "processors": [{good},{good}]}}"#);
        refused("post_processor", &twice, "one processor that adds");
    }

    /// What costs more time or memory than the text is long.
    #[test]
    fn parts_that_explode() {
        let double = r#"{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}"#;
        let times = |list: &str, part: &str, count| {
            format!(r#"{{"type": "Sequence", "{list}": [{}]}}"#, many(part, count))
        };
        with("normalizer", &times("normalizers", double, 12)).expect("4096 times");
        refused("normalizer", &times("normalizers", double, 13), "times longer");
        refused("decoder", &times("decoders", double, 40), "times longer");
        let level = r#"{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true}"#;
        refused("pre_tokenizer", &times("pretokenizers", level, 13), "times longer");
        let empty = r#"{"type": "Replace", "pattern": {"Regex": "x*"}, "content": "abcdefg"}"#;
        refused("decoder", &times("decoders", empty, 5), "times longer");
        refused("normalizer", empty, "at least one character");
        refused("normalizer", &times("normalizers", r#"{"type": "NFC"}"#, 64), "parts");
        let long = format!(r#"{{"type": "Prepend", "prepend": "{}"}}"#, "x".repeat(65));
        refused("normalizer", &long, "bytes of prepend");
        for regex in
            ["(?:(?=a)){1000000000}", "((a{1000}){1000}){1000}", "x{99999999999999999999}", "a{6000}b{6000}"]
        {
            let part = format!(
                r#"{{"type": "Split", "pattern": {{"Regex": "{regex}"}}, "behavior": "Isolated", "invert": false}}"#
            );
            refused("pre_tokenizer", &part, "repetitions");
        }
        let usual = r#"{"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}| ?\\p{L}+|\\s+(?!\\S)|\\x{2581}|\\s+"},
            "behavior": "Isolated", "invert": false}"#;
        with("pre_tokenizer", usual).expect("as published");
        let deep = "{\"type\":\"Sequence\",\"normalizers\":[".repeat(200) + &"]}".repeat(200);
        let text = format!("{{\"normalizer\":{deep}}}");
        assert!(matches!(Tokenizer::from_bytes(text.as_bytes()), Err(TextError::Tokenizer { .. })));
    }

    #[test]
    fn an_added_token_that_the_normalizer_removes_is_refused() {
        let made = |content: &str, normalized: bool| {
            let token = serde_json::json!([{"id": 7, "content": content, "normalized": normalized}]);
            let value = serde_json::json!({
                "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
                "normalizer": {"type": "Strip", "strip_left": true, "strip_right": true},
                "added_tokens": token,
            });
            Tokenizer::from_bytes(value.to_string().as_bytes())
        };
        let error = made("  ", true).expect_err("nothing is left of it");
        assert!(error.to_string().contains("leaves nothing of the added token \"  \""), "{error}");
        for (content, normalized) in [("  ", false), (" x ", true)] {
            made(content, normalized).expect("a token").encode("a  x a", false).expect("encodes");
        }
    }

    #[test]
    fn odd_files() {
        let plain = r#"{"added_tokens": null, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}"#;
        let marked = format!("\u{feff}{plain}");
        let tokenizer = Tokenizer::from_bytes(marked.as_bytes()).expect("a byte order mark, no added tokens");
        assert_eq!(tokenizer.vocab_size(), 1);
        let token = r#"[{"id": 7, "content": "<x>", "special": true}]"#;
        let tokenizer = with("added_tokens", token).expect("another id");
        assert_eq!((tokenizer.token_to_id("<x>"), tokenizer.notes().len()), (Some(3), 1));
        for bad in [
            "3",
            r#"[{"id": 1}]"#,
            r#"[{"id": -1, "content": "x"}]"#,
            r#"[{"id": 1, "content": "x", "special": 2}]"#,
        ] {
            assert!(matches!(with("added_tokens", bad), Err(TextError::Config { .. })), "{bad}");
        }
    }
}

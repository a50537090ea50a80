//! Checkpoints from before `tokenizer.json`: the vocabulary in a file of its own, and what is done with it in the class
//! that the configuration names.

use serde_json::{Map, Value, json};

use crate::LoadError;
use crate::checkpoint::format::json as file;
use crate::checkpoint::source::{ByteSource, read_whole};

const VOCAB: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const LINES: &str = "vocab.txt";
/// Bytes of a file at most.
const MAX_BYTES: u64 = 32 << 20;

/// How Qwen2 splits a text.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A `tokenizer.json` made of the files of a checkpoint; `None` if there are none that are known.
///
/// # Errors
/// Files that cannot be read.
pub(super) async fn load(
    source: &dyn ByteSource,
    config: Option<&Value>,
) -> Result<Option<Value>, LoadError> {
    let class = config.and_then(|c| c["tokenizer_class"].as_str());
    let class = class.map(|class| class.strip_suffix("Fast").unwrap_or(class));
    let empty = Map::new();
    let config = config.and_then(Value::as_object).unwrap_or(&empty);
    match class {
        None | Some("BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer") => {
            let bytes = read_whole(source, LINES, MAX_BYTES).await?;
            bytes.map(|bytes| Ok(word_piece(&text(LINES, bytes)?, config))).transpose()
        }
        Some(class @ ("GPT2Tokenizer" | "Qwen2Tokenizer")) => {
            let vocab = read_whole(source, VOCAB, MAX_BYTES).await?;
            let merges = read_whole(source, MERGES, MAX_BYTES).await?;
            let Some((vocab, merges)) = vocab.zip(merges) else { return Ok(None) };
            let vocab = file::parse(VOCAB, &vocab)?;
            Ok(Some(byte_level(class, &vocab, &text(MERGES, merges)?, config)))
        }
        Some(_) => Ok(None),
    }
}

fn text(file: &str, bytes: Vec<u8>) -> Result<String, LoadError> {
    String::from_utf8(bytes).map_err(|e| LoadError::Json { file: file.into(), message: e.to_string() })
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line))
}

/// The spelling of a special token: that of the configuration or the class's.
fn spelling<'a>(config: &'a Map<String, Value>, name: &str, default: &'a str) -> &'a str {
    let value = config.get(name);
    value.and_then(|v| v.as_str().or_else(|| v["content"].as_str())).unwrap_or(default)
}

fn special(vocab: &Map<String, Value>, tokens: &[&str]) -> Vec<Value> {
    let known = tokens.iter().filter_map(|token| Some((token, vocab.get(*token)?)));
    known
        .map(|(token, id)| {
            json!({"id": id, "content": token, "special": true, "normalized": false, "lstrip": false,
                "rstrip": false, "single_word": false})
        })
        .collect()
}

/// BERT's: a token on each line.
fn word_piece(text: &str, config: &Map<String, Value>) -> Value {
    let vocab: Map<String, Value> =
        lines(text).zip(0u32..).map(|(t, id)| (t.to_owned(), id.into())).collect();
    let flag = |name: &str, default: Value| config.get(name).cloned().unwrap_or(default);
    let name = |name, default| spelling(config, name, default);
    let (unk, sep, cls) =
        (name("unk_token", "[UNK]"), name("sep_token", "[SEP]"), name("cls_token", "[CLS]"));
    let tokens = special(&vocab, &[unk, sep, name("pad_token", "[PAD]"), cls, name("mask_token", "[MASK]")]);
    let framed = |token: &str, kind: u32| json!({"SpecialToken": {"id": token, "type_id": kind}});
    let part = |id: &str, kind: u32| json!({"Sequence": {"id": id, "type_id": kind}});
    let frame = |token: &str| json!({"id": token, "ids": [vocab.get(token)], "tokens": [token]});
    let post_processor = if vocab.contains_key(cls) && vocab.contains_key(sep) {
        json!({
            "type": "TemplateProcessing",
            "single": [framed(cls, 0), part("A", 0), framed(sep, 0)],
            "pair": [framed(cls, 0), part("A", 0), framed(sep, 0), part("B", 1), framed(sep, 1)],
            "special_tokens": {cls: frame(cls), sep: frame(sep)},
        })
    } else {
        Value::Null
    };
    json!({
        "added_tokens": tokens,
        "normalizer": {"type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": flag("tokenize_chinese_chars", true.into()),
            "strip_accents": flag("strip_accents", Value::Null),
            "lowercase": flag("do_lower_case", true.into())},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": post_processor,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": unk, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab},
    })
}

/// GPT-2's and Qwen2's: tokens with ids, and merges by rank.
fn byte_level(class: &str, vocab: &Value, merges: &str, config: &Map<String, Value>) -> Value {
    const END: &str = "<|endoftext|>";
    let space = config.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(false);
    let merges: Vec<&str> =
        lines(merges).filter(|line| !line.starts_with("#version") && !line.is_empty()).collect();
    let empty = Map::new();
    let known = vocab.as_object().unwrap_or(&empty);
    let mut names: Vec<&str> =
        ["bos_token", "eos_token", "unk_token"].map(|name| spelling(config, name, END)).to_vec();
    names.dedup();
    let tokens = special(known, &names);
    let level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": true, "use_regex": regex});
    let (normalizer, pre_tokenizer) = if class == "Qwen2Tokenizer" {
        let split =
            json!({"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": false});
        (json!({"type": "NFC"}), json!({"type": "Sequence", "pretokenizers": [split, level(false)]}))
    } else {
        (Value::Null, level(true))
    };
    // The class puts no token in front unless the configuration says so.
    let bos = spelling(config, "bos_token", END);
    let begins = config.get("add_bos_token").and_then(Value::as_bool).unwrap_or(false);
    let post_processor = match known.get(bos).filter(|_| begins) {
        None => Value::Null,
        Some(id) => {
            let (framed, part) = (
                |kind: u32| json!({"SpecialToken": {"id": bos, "type_id": kind}}),
                |id: &str, kind: u32| json!({"Sequence": {"id": id, "type_id": kind}}),
            );
            json!({
                "type": "TemplateProcessing", "single": [framed(0), part("A", 0)],
                "pair": [framed(0), part("A", 0), framed(1), part("B", 1)],
                "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}},
            })
        }
    };
    json!({
        "added_tokens": tokens, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor, "decoder": level(true),
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    })
}

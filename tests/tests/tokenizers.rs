//! Every golden tokenizer: encoding, pairs, decoding of arbitrary ids, streaming.

use girih_model::checkpoint::source::MemorySource;
use girih_model::text::tokenizer::Tokenizer;
use girih_tests::goldens;
use pollster::block_on;
use serde_json::Value;

fn ids(v: &Value) -> Vec<u32> {
    let list = v.as_array().unwrap_or_else(|| panic!("a list of ids, not {v}"));
    list.iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

fn text(v: &Value) -> &str {
    v.as_str().unwrap_or_else(|| panic!("a string, not {v}"))
}

/// Every golden tokenizer; `key` names the cases that the check compares.
fn each(key: &str, mut check: impl FnMut(&str, &Tokenizer, &Value)) {
    let mut count = 0;
    for folder in goldens::folders("tokenizers") {
        let bytes = std::fs::read(folder.join("tokenizer.json")).expect("tokenizer.json");
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let tokenizer = Tokenizer::from_bytes(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let golden = goldens::json(&folder.join("golden.json"));
        check(&name, &tokenizer, &golden);
        count += golden[key].as_array().map_or(0, Vec::len);
    }
    goldens::counted(&format!("tokenizers: {key}"), count);
}

fn list<'a>(golden: &'a Value, key: &str) -> &'a [Value] {
    let list = golden[key].as_array().map(Vec::as_slice).unwrap_or_default();
    assert!(!list.is_empty(), "no cases in {key}");
    list
}

#[test]
fn encoding_and_decoding() {
    each("encode", |name, tokenizer, golden| {
        for case in list(golden, "encode") {
            let input = text(&case["text"]);
            let what = format!("{name}: {input:?}");
            assert_eq!(tokenizer.encode(input, true).expect("encodes"), ids(&case["ids"]), "{what}");
            let plain = ids(&case["ids_no_special"]);
            assert_eq!(tokenizer.encode(input, false).expect("encodes"), plain, "{what}");
            let tokens = tokenizer.encode_with_offsets(input, false).expect("encodes");
            let (spelling, places): (Vec<_>, Vec<_>) =
                tokens.into_iter().map(|(_, token, place)| (token, [place.start, place.end])).unzip();
            assert_eq!(serde_json::json!(spelling), case["tokens"], "{what}");
            assert_eq!(serde_json::json!(places), case["offsets"], "{what}");
            assert_eq!(tokenizer.decode(&plain, false).expect("decodes"), text(&case["decoded"]), "{what}");
            let skipped = tokenizer.decode(&ids(&case["ids"]), true).expect("decodes");
            assert_eq!(skipped, text(&case["decoded_skip_special"]), "{what}");
        }
    });
}

#[test]
fn pairs() {
    each("pairs", |name, tokenizer, golden| {
        for case in list(golden, "pairs") {
            let got = tokenizer.encode_pair(text(&case["a"]), text(&case["b"])).expect("encodes");
            assert_eq!(got, (ids(&case["ids"]), ids(&case["type_ids"])), "{name}: {case}");
        }
    });
}

#[test]
fn arbitrary_ids() {
    each("decode_random_ids", |name, tokenizer, golden| {
        for case in list(golden, "decode_random_ids") {
            let ids = ids(&case["ids"]);
            assert_eq!(
                tokenizer.decode(&ids, false).expect("decodes"),
                text(&case["decoded"]),
                "{name}: {ids:?}"
            );
            let skipped = tokenizer.decode(&ids, true).expect("decodes");
            assert_eq!(skipped, text(&case["decoded_skip_special"]), "{name}: {ids:?}");
        }
    });
}

/// The pieces joined are the text of the tokens so far, less a character that is not complete yet.
#[test]
fn streaming() {
    each("stream", |name, tokenizer, golden| {
        for case in list(golden, "stream") {
            let prefixes = case["prefix_decodes"].as_array().expect("a list");
            let mut stream = tokenizer.stream(false);
            let mut got = String::new();
            let last = text(&prefixes[prefixes.len() - 1]);
            for (k, (id, prefix)) in ids(&case["ids"]).into_iter().zip(prefixes).enumerate() {
                got += &stream.push(id).expect("decodes");
                let want = text(prefix);
                let whole = want.trim_end_matches('\u{fffd}');
                if whole == want {
                    assert_eq!(got, want, "{name}: {k}");
                } else {
                    // A run of byte tokens is invalid as a whole until it is complete, so compare with the end.
                    assert!(last.starts_with(&got), "{name}: {k}: {got:?} is no prefix of {last:?}");
                }
            }
            got += &stream.finish().expect("decodes");
            assert_eq!(got, last, "{name}");
        }
        // The same holds for all texts with and without special tokens, which may hold anything but contractions.
        for case in list(golden, "encode") {
            for skip in [false, true] {
                let all = ids(&case["ids"]);
                let want = tokenizer.decode(&all, skip).expect("decodes");
                let mut stream = tokenizer.stream(skip);
                let pieces = all.iter().map(|&id| stream.push(id).expect("decodes")).collect::<String>();
                let got = pieces + &stream.finish().expect("decodes");
                if name != "wordpiece-bert" {
                    assert_eq!(got, want, "{name}: {}", case["text"]);
                }
            }
        }
    });
}

#[test]
fn vocabulary() {
    each("encode", |name, tokenizer, golden| {
        let size = golden["vocab_size_with_added"].as_u64().expect("a size") as u32;
        assert_eq!(tokenizer.vocab_size(), size, "{name}");
        assert_eq!(tokenizer.beyond(size + 64), [], "{name}");
        assert!(!tokenizer.beyond(size / 2).is_empty(), "{name}");
    });
}

/// The files of a golden tokenizer with changes: a whole file, `null` for none, or a list of places and values.
fn changed(base: &str, change: &Value) -> MemorySource {
    const FILES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"];
    let folder = goldens::dir().join("tokenizers").join(base);
    let mut files = serde_json::Map::new();
    for file in FILES {
        files.insert(file.to_owned(), goldens::json(&folder.join(file)));
    }
    for (file, change) in change.as_object().expect("files") {
        let Some(edits) = change.as_array() else {
            files.insert(file.clone(), change.clone());
            continue;
        };
        for edit in edits {
            let (last, path) = edit["at"].as_array().expect("a path").split_last().expect("a place");
            let mut place =
                files.entry(file.clone()).or_insert_with(|| Value::Object(serde_json::Map::default()));
            for key in path {
                place = place.get_mut(text(key)).expect("a place");
            }
            match (edit.get("value"), place) {
                (Some(value), Value::Array(list)) => list.push(value.clone()),
                (Some(value), place) => place[text(last)] = value.clone(),
                (None, place) => drop(place.as_object_mut().and_then(|o| o.remove(text(last)))),
            }
        }
    }
    files
        .into_iter()
        .filter(|(_, v)| !v.is_null())
        .fold(MemorySource::new(), |source, (file, value)| source.with(file, value.to_string().into_bytes()))
}

/// Special tokens that stand beside `tokenizer.json`, as transformers merges them.
#[test]
fn special_tokens_of_other_files() {
    let golden = goldens::cases("tokenizers/special_tokens");
    for case in list(&golden, "cases") {
        let name = text(&case["name"]);
        let source = changed(text(&case["base"]), &case["change"]);
        let tokenizer = block_on(Tokenizer::load(&source)).expect(name).expect("a tokenizer");
        for (field, want) in case["named"].as_object().expect("names") {
            assert_eq!(tokenizer.named(field), Some(text(want)), "{name}: {field}");
        }
        for case in list(case, "cases") {
            let what = format!("{name}: {}", case["text"]);
            let encode = |special| tokenizer.encode(text(&case["text"]), special).expect("encodes");
            assert_eq!(encode(true), ids(&case["ids"]), "{what}");
            assert_eq!(encode(false), ids(&case["ids_no_special"]), "{what}");
            let decode = |skip| tokenizer.decode(&ids(&case["ids"]), skip).expect("decodes");
            assert_eq!(decode(false), text(&case["decoded"]), "{what}");
            assert_eq!(decode(true), text(&case["decoded_skip_special"]), "{what}");
        }
        // A vocabulary with holes moves the ids of added tokens, as the crate counts.
        let other_id = [
            "decoder gives another id",
            "decoder with a normalized token",
            "a name of a token of the vocabulary",
        ];
        let other_id = other_id.contains(&name);
        assert_eq!(!tokenizer.notes().is_empty(), other_id, "{name}: {:?}", tokenizer.notes());
    }
}

/// Vocabularies in files of their own give what the `tokenizer.json` of the same class gives.
#[test]
fn vocabularies_without_a_tokenizer_file() {
    for (base, class) in [
        ("wordpiece-bert", Value::Null),
        ("bpe-gpt2", "GPT2Tokenizer".into()),
        ("bpe-qwen", "Qwen2TokenizerFast".into()),
    ] {
        let folder = goldens::dir().join("tokenizers").join(base);
        let whole = goldens::json(&folder.join("tokenizer.json"));
        let mut config = goldens::json(&folder.join("tokenizer_config.json"));
        config["tokenizer_class"] = class.clone();
        let added = whole["added_tokens"].as_array().expect("a list").iter();
        config["added_tokens_decoder"] = added.map(|t| (t["id"].to_string(), t.clone())).collect();
        let vocab = whole["model"]["vocab"].as_object().expect("a vocabulary");
        let mut source = MemorySource::new().with("tokenizer_config.json", config.to_string().into_bytes());
        if class.is_null() {
            let mut tokens: Vec<_> = vocab.iter().map(|(t, id)| (id.as_u64(), t.as_str())).collect();
            tokens.sort_unstable();
            let lines: String = tokens.iter().flat_map(|(_, token)| [*token, "\n"]).collect();
            source = source.with("vocab.txt", lines.into_bytes());
        } else {
            let merges = whole["model"]["merges"].as_array().expect("merges").iter();
            let pair = |m: &Value| {
                m.as_str().map_or_else(|| format!("{} {}", text(&m[0]), text(&m[1])), str::to_owned)
            };
            let lines: String = merges.map(|m| pair(m) + "\n").collect();
            source = source.with("vocab.json", whole["model"]["vocab"].to_string().into_bytes());
            source = source.with("merges.txt", format!("#version: 0.2\n{lines}").into_bytes());
        }
        let tokenizer = block_on(Tokenizer::load(&source)).expect(base).expect("a tokenizer");
        assert_eq!(tokenizer.notes(), [""; 0], "{base}");
        let golden = goldens::json(&folder.join("golden.json"));
        for case in list(&golden, "encode") {
            let input = text(&case["text"]);
            for (special, want) in [(true, "ids"), (false, "ids_no_special")] {
                assert_eq!(
                    tokenizer.encode(input, special).expect("encodes"),
                    ids(&case[want]),
                    "{base}: {input:?}"
                );
            }
            let decoded = tokenizer.decode(&ids(&case["ids"]), true).expect("decodes");
            assert_eq!(decoded, text(&case["decoded_skip_special"]), "{base}: {input:?}");
        }
    }
    // A class that is not known is none.
    let config = br#"{"tokenizer_class": "T5Tokenizer"}"#.to_vec();
    let source = MemorySource::new().with("tokenizer_config.json", config).with("vocab.txt", b"a".to_vec());
    assert!(block_on(Tokenizer::load(&source)).expect("no error").is_none());
}

//! Every golden tokenizer: encoding, pairs, decoding of arbitrary ids, streaming.

use girih_model::tokenizer::Tokenizer;
use girih_tests::goldens;
use serde_json::Value;

fn ids(v: &Value) -> Vec<u32> {
    let list = v.as_array().unwrap_or_else(|| panic!("a list of ids, not {v}"));
    list.iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

fn text(v: &Value) -> &str {
    v.as_str().unwrap_or_else(|| panic!("a string, not {v}"))
}

fn each(mut check: impl FnMut(&str, &Tokenizer, &Value)) {
    let folders = goldens::folders("tokenizers");
    assert!(!folders.is_empty(), "no golden tokenizers in {}", goldens::dir().display());
    for folder in folders {
        let bytes = std::fs::read(folder.join("tokenizer.json")).expect("tokenizer.json");
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let tokenizer = Tokenizer::from_bytes(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        check(&name, &tokenizer, &goldens::json(&folder.join("golden.json")));
    }
}

fn list<'a>(golden: &'a Value, key: &str) -> &'a [Value] {
    let list = golden[key].as_array().map(Vec::as_slice).unwrap_or_default();
    assert!(!list.is_empty(), "no cases in {key}");
    list
}

#[test]
fn encoding_and_decoding() {
    each(|name, tokenizer, golden| {
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
    each(|name, tokenizer, golden| {
        for case in list(golden, "pairs") {
            let got = tokenizer.encode_pair(text(&case["a"]), text(&case["b"])).expect("encodes");
            assert_eq!(got, (ids(&case["ids"]), ids(&case["type_ids"])), "{name}: {case}");
        }
    });
}

#[test]
fn arbitrary_ids() {
    each(|name, tokenizer, golden| {
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
    each(|name, tokenizer, golden| {
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
    each(|name, tokenizer, golden| {
        let size = golden["vocab_size_with_added"].as_u64().expect("a size") as u32;
        assert_eq!(tokenizer.vocab_size(), size, "{name}");
        tokenizer.check_vocab(size + 64).expect("fits");
        assert!(tokenizer.check_vocab(size / 2).is_err(), "{name}");
    });
}

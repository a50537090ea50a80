//! Tokenizers of GGUF files: ids, texts and ends of answers, against llama.cpp's and by hand.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use girih_model::checkpoint::format::gguf::{Array, GgufSource, Value};
use girih_model::checkpoint::source::{ByteSource, DirSource, MemorySource};
use girih_model::network::arch::KNOWN;
use girih_model::{Input, LoadError, LoadOptions, Model, Rows, RunError, Session, SessionOptions, Tokenizer};
use girih_tests::gguf::{File, convert, tokenizer};
use girih_tests::goldens;
use pollster::block_on;
use serde_json::Value as Json;

/// What a file says of its tokenizer.
struct Read {
    tokenizer: Tokenizer,
    config: Json,
    tokenizer_config: Json,
}

impl Read {
    fn ids(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode(text, false).expect("encodes")
    }

    fn whole(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode(text, true).expect("encodes")
    }

    fn text(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids, true).expect("decodes")
    }

    fn ends(&self) -> BTreeSet<u32> {
        ids(&self.config["eos_token_id"]).into_iter().collect()
    }
}

fn open(source: Arc<dyn ByteSource>, file: &str) -> Result<Read, LoadError> {
    let source = block_on(GgufSource::open(source, file, KNOWN.gguf))?;
    let text = |file: &str| {
        let size = block_on(source.size(file)).expect("a size").expect(file);
        block_on(source.read(file, 0..size)).expect(file)
    };
    let json = |file: &str| serde_json::from_slice(&text(file)).expect(file);
    Ok(Read {
        tokenizer: Tokenizer::from_bytes(&text("tokenizer.json"))?,
        config: json("config.json"),
        tokenizer_config: json("tokenizer_config.json"),
    })
}

fn read(file: &File) -> Result<Read, LoadError> {
    open(Arc::new(MemorySource::new().with("model.gguf", file.bytes(3))), "model.gguf")
}

fn ids(list: &Json) -> Vec<u32> {
    list.as_array().into_iter().flatten().filter_map(Json::as_u64).map(|id| id as u32).collect()
}

fn models(name: &str) -> PathBuf {
    goldens::dir().join("models").join(name)
}

/// Metadata of a checkpoint, with its tokenizer.
fn file(checkpoint: &str, pre: &str) -> File {
    let path = models(checkpoint);
    let mut out = convert(Arc::new(DirSource::new(&path)), &goldens::json(&path.join("config.json")));
    out.tensors.retain(|t| t.name == "token_embd.weight");
    tokenizer(&mut out, &goldens::json(&path.join("tokenizer.json")), pre);
    out
}

/// Metadata of a Llama with a vocabulary of SentencePiece.
fn pieces(tokens: &[(&str, f64, i64)]) -> File {
    let mut out = file("llama_llama3rope", "llama-bpe");
    out.metadata.retain(|(key, _)| !key.starts_with("tokenizer."));
    out.set("tokenizer.ggml.model", Value::String("llama".into()));
    let list = |values: Array| Value::Array(values);
    let spellings = tokens.iter().map(|t| t.0.to_owned()).collect();
    out.set("tokenizer.ggml.tokens", list(Array::String(spellings)));
    out.set("tokenizer.ggml.scores", list(Array::Float(tokens.iter().map(|t| t.1).collect())));
    out.set("tokenizer.ggml.token_type", list(Array::Int(tokens.iter().map(|t| t.2).collect())));
    out
}

/// Changes tokens and types.
fn change(file: &mut File, change: impl FnOnce(&mut Vec<String>, &mut Vec<i64>)) {
    let (mut tokens, mut kinds) = (Vec::new(), Vec::new());
    for (key, value) in &file.metadata {
        match (key.as_str(), value) {
            ("tokenizer.ggml.tokens", Value::Array(Array::String(v))) => tokens.clone_from(v),
            ("tokenizer.ggml.token_type", Value::Array(Array::Int(v))) => kinds.clone_from(v),
            _ => {}
        }
    }
    change(&mut tokens, &mut kinds);
    file.set("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
    file.set("tokenizer.ggml.token_type", Value::Array(Array::Int(kinds)));
}

/// Where llama.cpp departs from a model's own tokenizer, the latter is followed.
fn departs(name: &str, text: usize) -> bool {
    let composed = ["qwen2", "qwen3", "qwen3_embedding", "cohere"];
    // Number 8 is decomposed, 23 has spacing marks, 24 llama.cpp's own mark of words.
    (text == 8 && composed.contains(&name)) || (matches!(text, 23 | 24) && name == "bert_mean_pool")
}

#[test]
fn texts_give_the_ids_of_llama_cpp() {
    let dir = goldens::dir().join("gguf");
    let expected = goldens::json(&dir.join("expected.json"));
    let (mut files, mut departures) = (0, 0);
    for (name, golden) in expected["files"].as_object().expect("files") {
        let golden = &golden["tokenizer"];
        if golden.is_null() {
            continue;
        }
        files += 1;
        let file = open(Arc::new(DirSource::new(&dir)), &format!("{name}.gguf")).expect(name);
        // Without a key llama.cpp takes token 11 of byte-level vocabularies, whatever it is.
        let ends: BTreeSet<u32> = ids(&golden["ends"]).into_iter().collect();
        assert_eq!(file.ends(), if name == "glm4" { BTreeSet::new() } else { ends }, "{name}");
        let own = models(name).join("tokenizer.json");
        let own = std::fs::read(own).ok().map(|bytes| Tokenizer::from_bytes(&bytes).expect(name));
        for (i, text) in golden["texts"].as_array().expect("texts").iter().enumerate() {
            let text = text.as_str().expect("a text");
            let want = [&golden["ids_without_begin_and_end"][i], &golden["ids"][i]].map(ids);
            let got = [file.ids(text), file.whole(text)];
            if departs(name, i) {
                departures += 1;
                assert_ne!(got, want, "{name}, text {i}");
                match &own {
                    Some(own) => assert_eq!(got[0], own.encode(text, false).expect(name), "{name}, text {i}"),
                    // The composed form of the same characters.
                    None => {
                        assert_eq!(got[0], file.ids("caf\u{e9} \u{1eb9}\u{301} \u{fb01} \u{bd} \u{2460}"));
                    }
                }
            } else {
                assert_eq!(got, want, "{name}, text {i}: {text:?}");
            }
            // llama.cpp takes blanks before punctuation away from texts of some vocabularies, and leaves the blank
            // that its own marks of words leave at the beginning.
            let plain = |s: &str| s.replace(' ', "");
            let text = golden["decoded"][i].as_str().expect("a text");
            assert_eq!(plain(&file.text(&want[1])), plain(text), "{name}, text {i}");
        }
    }
    assert_eq!((files, departures), (17, 6));
}

/// Begin-of-text where no key says so: llama.cpp's table.
#[test]
fn beginnings_by_default() {
    for (pre, begins) in [
        ("llama-bpe", true),
        ("lfm2", true),
        ("tekken", true),
        ("command-r", false),
        ("deepseek-v3", false),
        ("qwen2", false),
        ("gpt-2", false),
        ("smaug-bpe", false),
    ] {
        let mut file = file("llama_llama3rope", pre);
        file.metadata.retain(|(key, _)| !key.ends_with("add_bos_token"));
        let bos = read(&file).expect(pre).whole("").first().copied();
        assert_eq!(bos.is_some(), begins, "{pre}");
        file.set("tokenizer.ggml.add_bos_token", Value::Bool(!begins));
        assert_eq!(read(&file).expect(pre).whole("").is_empty(), begins, "{pre}");
    }
    // SentencePiece begins with token 1 unless metadata say otherwise.
    let file = pieces(&[("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("▁a", 0.0, 1)]);
    let file = read(&file).expect("pieces");
    assert_eq!(file.whole("a"), [1, 3]);
    assert_eq!(file.ends(), BTreeSet::from([2]));
    assert_eq!(file.tokenizer_config["bos_token"], "<s>");
}

#[test]
fn ends_by_key() {
    let mut file = file("llama_llama3rope", "llama-bpe");
    file.set("tokenizer.ggml.eos_token_id", Value::Uint(507));
    file.set("tokenizer.ggml.add_eos_token", Value::Bool(true));
    file.set("tokenizer.ggml.eot_token_id", Value::Uint(3));
    file.set("tokenizer.ggml.eom_token_id", Value::Uint(4));
    file.set("tokenizer.ggml.eos_token_ids", Value::Array(Array::Uint(vec![507, 5])));
    file.set("tokenizer.ggml.fim_pad_token_id", Value::Uint(6));
    let got = read(&file).expect("a file");
    assert!(got.ends().is_superset(&BTreeSet::from([3, 4, 5, 6, 507])), "{:?}", got.ends());
    assert_eq!(ids(&got.config["eos_token_id"])[0], 507, "the one of texts comes first");
    assert_eq!(got.whole("a").last(), Some(&507));
    for key in ["eos_token_id", "eot_token_id", "fim_pad_token_id"] {
        let mut file = file.clone();
        file.set(&format!("tokenizer.ggml.{key}"), Value::Uint(512));
        let error = read(&file).err().expect(key).to_string();
        assert!(error.contains(key) && error.contains("512"), "{error}");
    }
}

/// By spelling, whatever the type.
#[test]
fn ends_by_spelling() {
    for spelling in [
        "<|im_end|>",
        "<|end|>",
        "<|endoftext|>",
        "<end_of_turn>",
        "<end_of_utterance>",
        "</s>",
        "[EOS]",
        "<｜end▁of▁sentence｜>",
        "<|fim_pad|>",
        "<|repo_name|>",
        "<|file_sep|>",
    ] {
        for kind in [1, 3, 4] {
            let mut file = file("llama_llama3rope", "llama-bpe");
            change(&mut file, |tokens, kinds| {
                tokens.push(spelling.to_owned());
                kinds.push(kind);
            });
            let got = read(&file).expect(spelling);
            assert!(got.ends().contains(&512), "{spelling} of type {kind}");
            assert_eq!(got.ids(&format!("a{spelling}a")), [64, 512, 64], "{spelling} of type {kind}");
            assert_eq!(got.text(&[64, 512]), "a", "{spelling} of type {kind}");
        }
    }
    let with = |spellings: &[&str]| {
        let mut file = file("llama_llama3rope", "llama-bpe");
        change(&mut file, |tokens, kinds| {
            tokens.extend(spellings.iter().map(|&s| s.to_owned()));
            kinds.extend(spellings.iter().map(|_| 3));
        });
        let got = read(&file).expect("a file");
        (got.ends().into_iter().filter(|&id| id >= 512).collect::<Vec<_>>(), got.text(&[512]))
    };
    assert_eq!(with(&["<|end|>", "<|user|>"]), (vec![512], String::new()));
    // One message of several, and shown.
    assert_eq!(with(&["<|end|>", "<|return|>", "<|call|>"]), (vec![513, 514], "<|end|>".into()));
    assert_eq!(with(&["</s>", "<|tool_response>"]).0, [513]);
    assert_eq!(with(&["<|channel|>"]), (vec![], "<|channel|>".into()));
}

/// The first id of a spelling is the one that texts get; the others are spelt all the same.
#[test]
fn spellings_that_come_twice() {
    let mut byte_level = file("llama_llama3rope", "llama-bpe");
    let mut word_piece = file("bert_mean_pool", "");
    for file in [&mut byte_level, &mut word_piece] {
        change(file, |tokens, kinds| {
            let again = [tokens[39].clone(), tokens[200].clone(), tokens[tokens.len() - 1].clone()];
            tokens.extend(again);
            kinds.extend([1, 1, 3]);
        });
        let count =
            if file.metadata.iter().any(|(_, v)| *v == Value::String("bert".into())) { 700 } else { 512 };
        let got = read(file).expect("a file");
        for (id, again) in [(39, count), (200, count + 1)] {
            assert_eq!(got.text(&[again]), got.text(&[id]));
            assert_eq!(got.ids(&got.text(&[id])).iter().find(|&&id| id >= count), None);
        }
    }
    let got = pieces(&[("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("▁a", 0.0, 1), ("▁a", 1.0, 1)]);
    let got = read(&got).expect("pieces");
    assert_eq!((got.ids("a"), got.text(&[4, 4])), (vec![3], "a a".to_owned()));
}

/// More tokens than embeddings, and fewer: what matters is which occur.
#[test]
fn vocabularies_of_another_size_than_the_embedding() {
    let path = models("llama_llama3rope");
    let mut file = convert(Arc::new(DirSource::new(&path)), &goldens::json(&path.join("config.json")));
    tokenizer(&mut file, &goldens::json(&path.join("tokenizer.json")), "llama-bpe");
    let gpu = girih_tests::gpu();
    let load = |file: &File| {
        let source = MemorySource::new().with("model.gguf", file.bytes(3));
        let model = Model::load(&gpu, Arc::new(source), LoadOptions::default(), |_| ());
        block_on(model).expect("a model")
    };
    let mut more = file.clone();
    change(&mut more, |tokens, kinds| {
        tokens.push("<|more|>".to_owned());
        kinds.push(3);
    });
    let model = load(&more);
    let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
    let mut run = |text: &str| {
        let token_ids = model.tokenizer().expect("a tokenizer").encode(text, false).expect("encodes");
        session.forward(&[Input { slot: 0, token_ids: &token_ids }], Rows::Last, None).map(|_| ())
    };
    run("a").expect("a token with an embedding");
    let error = run("<|more|>").expect_err("a token without one");
    assert!(matches!(error, RunError::TokenId { id: 512, vocab_size: 512 }), "{error}");
    change(&mut file, |tokens, kinds| {
        tokens.truncate(508);
        kinds.truncate(508);
    });
    let model = load(&file);
    let t = model.tokenizer().expect("a tokenizer");
    assert_eq!(t.decode(&[64, 510, 64], false).expect("decodes"), "aa");
}

/// What an entry of the merges names need not be a piece: only what is joined.
#[test]
fn pieces_of_parts_that_are_none() {
    let tokens = |more: &[(&'static str, f64, i64)]| {
        let mut tokens = vec![("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)];
        tokens.extend(more);
        tokens
    };
    let file = read(&pieces(&tokens(&[("▁hé", -1.0, 1), ("a", -2.0, 1), ("▁h", -1.5, 1)]))).expect("pieces");
    assert_eq!(file.ids("héa"), [3, 4]);
    // As bytes where the vocabulary has them, as one unknown token where not.
    assert_eq!(file.ids("haéüa"), [5, 4, 0, 4]);
    let bytes = [("<0xC3>", 0.0, 6), ("<0xA9>", 0.0, 6), ("▁", -1.0, 1)];
    let file = read(&pieces(&tokens(&bytes))).expect("pieces");
    assert_eq!(file.ids("é"), [5, 3, 4]);
    assert_eq!(file.text(&[5, 3, 4]), "é");
    // Whole numbers as scores; user-defined pieces are found before anything is joined.
    let mut file = pieces(&tokens(&[("▁ab", -1.0, 1), ("ab", -3.0, 4), ("▁", -2.0, 1), ("c", 0.0, 1)]));
    file.set("tokenizer.ggml.scores", Value::Array(Array::Int(vec![0, 0, 0, -1, -3, -2, 0])));
    assert_eq!(read(&file).expect("pieces").ids("abc"), [4, 5, 6]);
}

#[test]
fn lower_case_by_key_or_by_the_vocabulary() {
    let own = |more: &[&str], key: Option<(&str, bool)>| {
        let mut file = file("bert_mean_pool", "");
        change(&mut file, |tokens, kinds| {
            tokens.extend(more.iter().map(|&t| t.to_owned()));
            kinds.extend(more.iter().map(|_| 1));
        });
        if let Some((key, value)) = key {
            file.set(&format!("tokenizer.ggml.normalizer.{key}"), Value::Bool(value));
        }
        let got = read(&file).expect("a file");
        got.text(&got.ids("Hello Café"))
    };
    assert_eq!(own(&[], None), "hello cafe");
    assert_eq!(own(&["[URL]"], None), "hello cafe");
    assert_eq!(own(&["▁Hello", "▁Caf\u{e9}", "▁A"], None), "Hello Café");
    assert_eq!(own(&["▁Hello", "▁Caf\u{e9}"], Some(("lowercase", false))), "Hello Café");
    assert_eq!(own(&["▁Hello", "▁Cafe", "▁A"], Some(("lowercase", true))), "hello cafe");
    assert_eq!(own(&["▁Hello", "▁Cafe", "▁A"], Some(("strip_accents", true))), "Hello Cafe");
}

#[test]
fn vocabularies_that_cannot_be_read() {
    let good = pieces(&[("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("▁a", 0.0, 1)]);
    read(&good).expect("pieces");
    for (key, value, words) in [
        ("scores", Value::Array(Array::Float(vec![0.0; 3])), ["3", "4 elements"]),
        ("scores", Value::Array(Array::Float(vec![f64::NAN; 4])), ["NaN", "finite"]),
        ("token_type", Value::Array(Array::Int(vec![1; 3])), ["3", "4 elements"]),
        ("tokens", Value::Uint(1), ["tokens", "list of texts"]),
        ("model", Value::String("rwkv".into()), ["rwkv", "gpt2, llama"]),
        ("bos_token_id", Value::Uint(4), ["4", "number of tokens"]),
    ] {
        let mut file = good.clone();
        file.set(&format!("tokenizer.ggml.{key}"), value);
        let error = read(&file).err().expect(key).to_string();
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    }
    let mut file = file("llama_llama3rope", "kimi-k9");
    let error = read(&file).err().expect("a rule that is not known").to_string();
    assert!(error.contains("kimi-k9") && error.contains("qwen2") && error.contains("deepseek-v3"), "{error}");
    file.set("tokenizer.ggml.pre", Value::String("llama-bpe".into()));
    file.set("tokenizer.ggml.merges", Value::Array(Array::String(vec!["ab".into()])));
    let error = read(&file).err().expect("no pair").to_string();
    assert!(error.contains("merges"), "{error}");
}

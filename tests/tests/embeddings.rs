//! Texts to vectors against sentence-transformers: lengths, prompts, pooling, end tokens.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use girih_kernels::Gpu;
use girih_model::checkpoint::source::MemorySource;
use girih_model::{LoadError, LoadOptions, Model, Prompt, RunError};
use girih_tests::goldens::{self, Tensors, assert_close};
use pollster::block_on;
use serde_json::{Value, json};

/// The files of a checkpoint, without reference data.
fn folder(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for dir in ["", "1_Pooling"] {
        for entry in std::fs::read_dir(path.join(dir)).expect("a folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_file() && !name.starts_with("reference") {
                let name = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                files.insert(name, std::fs::read(entry.path()).expect("a file"));
            }
        }
    }
    files
}

/// A golden checkpoint with other files; null takes one away.
fn changed(checkpoint: &str, files: &Value, tokenizer: &Value) -> MemorySource {
    let path = goldens::dir().join("models").join(checkpoint);
    let mut out = folder(&path);
    let mut json = goldens::json(&path.join("tokenizer.json"));
    for (field, value) in tokenizer.as_object().into_iter().flatten() {
        json[field] = value.clone();
    }
    out.insert("tokenizer.json".to_owned(), json.to_string().into_bytes());
    for (name, value) in files.as_object().into_iter().flatten() {
        if value.is_null() {
            out.remove(name);
        } else {
            out.insert(name.clone(), value.to_string().into_bytes());
        }
    }
    out.into_iter().fold(MemorySource::new(), |source, (name, bytes)| source.with(&name, bytes))
}

fn load(gpu: &Gpu, source: MemorySource) -> Result<Arc<Model>, LoadError> {
    block_on(Model::load(gpu, Arc::new(source), LoadOptions::default(), |_| ()))
}

#[test]
fn texts_give_the_vectors_of_sentence_transformers() {
    let gpu = girih_tests::gpu();
    let golden = goldens::cases("embeddings/cases");
    let cases = golden["cases"].as_array().expect("cases");
    for case in cases {
        let name = case["name"].as_str().expect("a name");
        let source =
            changed(case["checkpoint"].as_str().expect("a checkpoint"), &case["files"], &case["tokenizer"]);
        let model = load(&gpu, source).expect(name);
        let prompt = case["prompt"].as_str().map_or(Prompt::Default, Prompt::Named);
        let texts = case["texts"].as_array().expect("texts").iter().filter_map(Value::as_str);
        let ids: Result<Vec<_>, _> = texts.map(|text| model.embedding_ids_with(text, prompt)).collect();
        let ids = ids.expect(name);
        assert_eq!(json!(ids), case["ids"], "{name}");
        // All at once: a long one does not change the others.
        let vectors = block_on(model.embed_with(&ids, prompt)).expect(name);
        let want: Vec<Vec<f32>> = serde_json::from_value(case["vectors"].clone()).expect("vectors");
        for (got, want) in vectors.iter().zip(&want) {
            assert_close(name, got, want, 5e-5, 1e-4);
        }
        assert_eq!(vectors.len(), want.len(), "{name}");
    }
}

/// Whatever text ends with is what `add_eos_token` says; llama.cpp's GELU is a table of float16 values.
#[test]
fn gguf_files_give_the_vectors_of_llama_cpp() {
    let gpu = girih_tests::gpu();
    let dir = goldens::dir().join("gguf");
    let expected = goldens::json(&dir.join("expected.json"));
    let tensors = Tensors::open(&dir.join("expected.safetensors"));
    for (name, tolerance) in [("bert_mean_pool", 4e-4), ("qwen3_embedding", 2e-5)] {
        let bytes = std::fs::read(dir.join(format!("{name}.gguf"))).expect(name);
        let model = load(&gpu, MemorySource::new().with("model.gguf", bytes)).expect(name);
        let golden = &expected["files"][name]["embeddings"];
        let texts = golden["texts"].as_array().expect("texts").iter().filter_map(Value::as_str);
        let ids: Vec<Vec<u32>> = serde_json::from_value(golden["ids"].clone()).expect("ids");
        // The first six are those of the checkpoint; of the others, some depart from its own tokenizer.
        for (text, want) in texts.zip(&ids).take(6) {
            assert_eq!(&model.embedding_ids(text).expect(name), want, "{name}: {text}");
        }
        let vectors = block_on(model.embed(&ids)).expect(name).concat();
        assert_close(name, &vectors, &tensors.f32(&format!("{name}.texts.embedding")).1, tolerance, 0.0);
        let sequences: Vec<Vec<u32>> =
            serde_json::from_value(golden["sequences"].clone()).expect("sequences");
        let vectors = block_on(model.embed(&sequences)).expect(name).concat();
        assert_close(name, &vectors, &tensors.f32(&format!("{name}.sequences.embedding")).1, tolerance, 0.0);
    }
}

#[test]
fn prompts_by_name() {
    let gpu = girih_tests::gpu();
    let file = json!({"prompts": {"query": "query: ", "none": null}, "default_prompt_name": "query"});
    let files = json!({"config_sentence_transformers.json": file});
    let model = load(&gpu, changed("bert_mean_pool", &files, &Value::Null)).expect("a model");
    assert_eq!(model.prompts().texts.keys().collect::<Vec<_>>(), ["none", "query"]);
    assert_eq!(model.prompts().default.as_deref(), Some("query"));
    let ids = |text: &str, prompt| model.embedding_ids_with(text, prompt).expect("ids");
    let asked = model.embedding_ids("a cat").expect("ids");
    assert_eq!(asked, ids("a cat", Prompt::Named("query")));
    assert_eq!(asked, ids("a cat", Prompt::Text("query: ")));
    assert_eq!(asked, ids("query: a cat", Prompt::Text("")));
    assert_eq!(ids("a cat", Prompt::Named("none")), ids("a cat", Prompt::Text("")));
    let error = model.embedding_ids_with("a cat", Prompt::Named("passage")).expect_err("no such prompt");
    assert!(
        matches!(&error, RunError::NoPrompt { got, known } if got == "passage" && known.len() == 2),
        "{error}"
    );
    assert_eq!(error.to_string(), "the prompt is \"passage\", the checkpoint has none, query");
}

/// The first files of Qwen3-Embedding say nowhere that texts end in the token that the model was trained with; whoever
/// says anything is believed.
#[test]
fn a_last_token_is_added_only_where_nothing_is_said() {
    let gpu = girih_tests::gpu();
    let path = goldens::dir().join("models/qwen3_embedding");
    let last = |change: &dyn Fn(&mut Value), config: Value| {
        let mut tokenizer = goldens::json(&path.join("tokenizer_config.json"));
        change(&mut tokenizer);
        let mut files = json!({"tokenizer_config.json": tokenizer});
        for (name, value) in config.as_object().into_iter().flatten() {
            files[name] = value.clone();
        }
        let model = load(&gpu, changed("qwen3_embedding", &files, &Value::Null)).expect("a model");
        model.embedding_ids("a cat").expect("ids").len()
    };
    assert_eq!(last(&|_| (), Value::Null), 6);
    assert_eq!(last(&|t| t["pad_token"] = json!({"content": "<|endoftext|>"}), Value::Null), 6);
    assert_eq!(last(&|t| t["add_eos_token"] = false.into(), Value::Null), 5);
    assert_eq!(last(&|t| t["pad_token"] = "<|im_end|>".into(), Value::Null), 5);
    let mean = json!({"1_Pooling/config.json": {"pooling_mode": "mean"}});
    assert_eq!(last(&|_| (), mean), 5);
    // With room for it.
    let short = json!({"sentence_bert_config.json": {"max_seq_length": 4}});
    assert_eq!(last(&|_| (), short), 4);
}

#[test]
fn files_that_say_something_else() {
    let gpu = girih_tests::gpu();
    for (file, value, words) in [
        (
            "sentence_bert_config.json",
            json!({"max_seq_length": "long"}),
            ["max_seq_length", "number of tokens"],
        ),
        ("sentence_bert_config.json", json!({"max_seq_length": 0}), ["max_seq_length", "1 or more"]),
        ("sentence_bert_config.json", json!({"do_lower_case": "yes"}), ["do_lower_case", "true or false"]),
        (
            "config_sentence_transformers.json",
            json!({"default_prompt_name": "x"}),
            ["default_prompt_name", "x"],
        ),
        ("config_sentence_transformers.json", json!({"prompts": {"query": 3}}), ["prompts.query", "3"]),
        ("config_sentence_transformers.json", json!({"prompts": ["a"]}), ["prompts", "by name"]),
        ("1_Pooling/config.json", json!({"pooling_mode": "median"}), ["median", "weightedmean"]),
        ("1_Pooling/config.json", json!({"include_prompt": 1}), ["include_prompt", "true or false"]),
    ] {
        let source = changed("bert_mean_pool", &json!({file: value}), &Value::Null);
        let error = load(&gpu, source).expect_err(file).to_string();
        assert!(error.contains(file) && words.iter().all(|w| error.contains(w)), "{error}");
    }
}

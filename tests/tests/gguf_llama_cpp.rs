//! GGUF files that llama.cpp's own converter and quantiser made, against what llama.cpp computes from them: logits,
//! greedy tokens. How the files were made, and where llama.cpp departs from the models' authors:
//! `goldens/gguf/README.md`. Their tokenizers: `gguf_tokenizers`; embeddings: `embeddings`.
//!
//! `GIRIH_MODEL=name` picks one file.

use std::ops::ControlFlow;
use std::sync::Arc;

use girih_model::checkpoint::format::gguf::GgufSource;
use girih_model::network::arch::KNOWN;
use girih_model::{
    GenerateOptions, Input, LoadOptions, Model, Rows, Sampling, Session, SessionOptions, generate,
};
use girih_tests::files;
use girih_tests::goldens::{self, Tensors, assert_close};
use pollster::block_on;
use serde_json::Value;

/// Names of the files with what llama.cpp says of them.
fn expected() -> (Vec<(String, Value)>, Tensors) {
    let only = std::env::var("GIRIH_MODEL").ok();
    let dir = goldens::dir().join("gguf");
    let json = goldens::json(&dir.join("expected.json"));
    goldens::counted("gguf", json["files"].as_object().map_or(0, serde_json::Map::len));
    let files: Vec<(String, Value)> = json["files"]
        .as_object()
        .expect("files")
        .iter()
        .filter(|(name, _)| only.as_deref().is_none_or(|only| only == name.as_str()))
        .map(|(name, file)| (name.clone(), file.clone()))
        .collect();
    assert!(!files.is_empty(), "no such file");
    (files, Tensors::open(&dir.join("expected.safetensors")))
}

fn load(name: &str) -> Arc<Model> {
    let source = files::source(&goldens::dir().join("gguf"));
    let source = block_on(GgufSource::open(source, &format!("{name}.gguf"), KNOWN.gguf));
    let source = Arc::new(source.unwrap_or_else(|e| panic!("{name}: {e}")));
    let model = block_on(Model::load(&girih_tests::gpu(), source, LoadOptions::default(), |_| ()));
    let model = model.unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(model.unused_tensors().is_empty(), "{name}: {:?}", model.unused_tensors());
    model
}

fn tokens(list: &Value) -> Vec<u32> {
    list.as_array().into_iter().flatten().filter_map(Value::as_u64).map(|id| id as u32).collect()
}

/// Largest difference that logits may have. The noise of f32 is some 2e-5; ggml takes GELU with tanh from a table of
/// f16 values.
fn tolerance(name: &str) -> f64 {
    if name.starts_with("gemma") { 5e-3 } else { 5e-5 }
}

/// llama.cpp takes the long factors where the context is longer than the trained length, the model's authors where
/// the sequence is: only the prompt of 70 tokens is long for both.
fn agrees(name: &str, prompt: &str) -> bool {
    name != "phi3_longrope" || prompt == "p70"
}

#[test]
fn logits_and_greedy_tokens_are_those_of_llama_cpp() {
    let (files, tensors) = expected();
    let mut compared = 0;
    for (name, file) in &files {
        let Some(prompts) = file["llama_cpp"].as_object() else { continue };
        let model = load(name);
        let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
        for (prompt, want) in prompts.iter().filter(|(prompt, _)| agrees(name, prompt)) {
            let token_ids = tokens(&want["input_ids"]);
            session.truncate(0, 0);
            let input = [Input { slot: 0, token_ids: &token_ids }];
            let logits = session.forward(&input, Rows::All, None).expect("forward");
            let logits = block_on(logits.to_f32(session.gpu())).expect("read");
            let want_logits = tensors.f32(&format!("{name}.{prompt}.logits")).1;
            let got = &logits[logits.len() - want_logits.len()..]; // the last rows, of long prompts
            assert_close(&format!("{name} {prompt}"), got, &want_logits, tolerance(name), 0.0);

            let firm = want["firm_tokens"].as_u64().expect("a number") as usize;
            let options = GenerateOptions {
                max_tokens: firm,
                sampling: Sampling::default(),
                stop: Vec::new(),
                stop_ids: Vec::new(),
                continues: false,
                slot: 0,
            };
            if firm > 0 {
                let flow = |_: &str| ControlFlow::Continue(());
                let got =
                    block_on(generate(&mut session, None, &token_ids, &options, flow)).expect("generates");
                assert_eq!(got.token_ids, tokens(&want["greedy"])[..firm], "{name} {prompt}");
            }
            compared += 1;
        }
    }
    println!("{compared} prompts of {} files", files.len());
    if std::env::var_os("GIRIH_MODEL").is_none() {
        goldens::counted("gguf: prompts", compared);
    }
}

//! GGUF files that llama.cpp's own converter and quantiser made, against what llama.cpp computes from them: logits,
//! greedy tokens. How the files were made, and where llama.cpp departs from the models' authors:
//! `goldens/gguf/README.md`, and for mixtures of experts `goldens/gguf_moe/README.md`. Their tokenizers:
//! `gguf_tokenizers`; embeddings: `embeddings`.
//!
//! `GIRIH_MODEL=name` picks one file.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use girih_kernels::Tier;
use girih_model::checkpoint::format::gguf::GgufSource;
use girih_model::checkpoint::source::{BoxFuture, ByteSource};
use girih_model::checkpoint::table::TensorTable;
use girih_model::network::arch::KNOWN;
use girih_model::{
    GenerateOptions, Input, LoadError, LoadOptions, Model, Rows, Sampling, Session, SessionOptions, generate,
};
use girih_tests::files;
use girih_tests::goldens::{self, Tensors, assert_close};
use pollster::block_on;
use serde_json::Value;

/// Names of a folder's files with what llama.cpp says of them: of those whose architecture is known.
fn expected(folder: &str) -> (Vec<(String, Value)>, Tensors) {
    let only = std::env::var("GIRIH_MODEL").ok();
    let dir = goldens::dir().join(folder);
    let json = goldens::json(&dir.join("expected.json"));
    let known = |file: &Value| KNOWN.gguf.iter().any(|known| file["architecture"] == known.family.name);
    let files: Vec<(String, Value)> = json["files"]
        .as_object()
        .expect("files")
        .iter()
        .filter(|(_, file)| known(file))
        .map(|(name, file)| (name.clone(), file.clone()))
        .collect();
    goldens::counted(folder, files.len());
    let chosen = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let files = files.into_iter().filter(|(name, _)| chosen(name)).collect();
    (files, Tensors::open(&dir.join("expected.safetensors")))
}

/// A file whose bounds of YaRN's correction are rounded, as llama.cpp does it for every model.
#[derive(Debug)]
struct Rounded {
    file: GgufSource,
    config: Vec<u8>,
}

impl Rounded {
    fn new(file: GgufSource) -> Self {
        let size = block_on(file.size("config.json")).expect("a size").expect("a configuration");
        let text = block_on(file.read("config.json", 0..size)).expect("a configuration");
        let mut config: Value = serde_json::from_slice(&text).expect("JSON");
        config["rope_scaling"]["truncate"] = true.into();
        Self { file, config: config.to_string().into_bytes() }
    }
}

impl ByteSource for Rounded {
    fn read<'a>(&'a self, file: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Vec<u8>, LoadError>> {
        match file {
            "config.json" => {
                let part = self.config[range.start as usize..range.end as usize].to_vec();
                Box::pin(std::future::ready(Ok(part)))
            }
            _ => self.file.read(file, range),
        }
    }

    fn size<'a>(&'a self, file: &'a str) -> BoxFuture<'a, Result<Option<u64>, LoadError>> {
        match file {
            "config.json" => Box::pin(std::future::ready(Ok(Some(self.config.len() as u64)))),
            _ => self.file.size(file),
        }
    }

    fn tensors(&self) -> Option<&TensorTable> {
        self.file.tensors()
    }
}

fn load(folder: &str, name: &str) -> Arc<Model> {
    let source = files::source(&goldens::dir().join(folder));
    let source = block_on(GgufSource::open(source, &format!("{name}.gguf"), KNOWN.gguf));
    let source = source.unwrap_or_else(|e| panic!("{name}: {e}"));
    let source: Arc<dyn ByteSource> =
        if name.starts_with("gpt_oss") { Arc::new(Rounded::new(source)) } else { Arc::new(source) };
    let model = block_on(Model::load(&girih_tests::gpu(), source, LoadOptions::default(), |_| ()));
    let model = model.unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(model.unused_tensors().is_empty(), "{name}: {:?}", model.unused_tensors());
    model
}

fn tokens(list: &Value) -> Vec<u32> {
    list.as_array().into_iter().flatten().filter_map(Value::as_u64).map(|id| id as u32).collect()
}

/// Largest difference that logits may have. The noise of f32 is some 2e-5; ggml takes GELU with tanh from a table of
/// f16 values, and gpt-oss multiplies what rounding leaves: 1e-6 of its weights moves its logits by 6e-4.
fn tolerance(name: &str) -> f64 {
    match name {
        _ if name.starts_with("gemma") => 5e-3,
        _ if name.starts_with("gpt_oss") => 5e-4,
        _ => 5e-5,
    }
}

/// llama.cpp takes the long factors where the context is longer than the trained length, the model's authors where
/// the sequence is: only the prompt of 70 tokens is long for both.
fn agrees(name: &str, prompt: &str) -> bool {
    name != "phi3_longrope" || prompt == "p70"
}

/// Files that would compile more formats of weights at t0, half a minute for CPUs; `kernel_twins` compares them there.
const FORMATS: [&str; 4] = ["mixtral-f16", "qwen3_moe-mxfp4", "qwen3_moe-q8_0", "fable-moe-q4_k_m"];

fn is_left_out(name: &str) -> bool {
    let chosen = std::env::var_os("GIRIH_MODEL").is_some();
    !chosen && FORMATS.contains(&name) && girih_tests::gpu().caps().tier == Tier::Portable
}

fn greedy(session: &mut Session, token_ids: &[u32], max_tokens: usize) -> Vec<u32> {
    let options = GenerateOptions {
        max_tokens,
        sampling: Sampling::default(),
        stop: Vec::new(),
        stop_ids: Vec::new(),
        continues: false,
        slot: 0,
    };
    let flow = |_: &str| ControlFlow::Continue(());
    block_on(generate(session, None, token_ids, &options, flow)).expect("generates").token_ids
}

fn compare(folder: &str) {
    let (files, tensors) = expected(folder);
    let (mut compared, mut left_out) = (0, 0);
    for (name, file) in &files {
        let Some(prompts) = file["llama_cpp"].as_object() else { continue };
        if is_left_out(name) {
            left_out += prompts.len();
            continue;
        }
        let model = load(folder, name);
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
            if firm > 0 {
                let got = greedy(&mut session, &token_ids, firm);
                assert_eq!(got, tokens(&want["greedy"])[..firm], "{name} {prompt}");
            }
            compared += 1;
        }
    }
    println!("{compared} prompts of {} files, {left_out} left out", files.len());
    if std::env::var_os("GIRIH_MODEL").is_none() {
        goldens::counted(&format!("{folder}: prompts"), compared + left_out);
    }
}

#[test]
fn logits_and_greedy_tokens_are_those_of_llama_cpp() {
    compare("gguf");
}

#[test]
fn mixtures_of_experts_choose_and_compute_as_in_llama_cpp() {
    compare("gguf_moe");
}

/// Experts of several K-quants, with their own tokenizer.
#[test]
fn a_trained_mixture_tells_the_stories_of_llama_cpp() {
    const NAME: &str = "fable-moe-q4_k_m";
    if std::env::var("GIRIH_MODEL").is_ok_and(|only| only != NAME) || is_left_out(NAME) {
        girih_tests::skipped("a trained mixture in K-quants at t0");
        return;
    }
    let dir = goldens::dir().join("gguf_moe");
    let json = goldens::json(&dir.join("expected.json"));
    let results = json["fable-moe"]["files"]["q4_k_m"]["results"].as_object().expect("prompts");
    let model = load("gguf_moe", NAME);
    let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
    for (prompt, want) in results {
        let token_ids = model.tokenizer().expect("a tokenizer").encode(prompt, true).expect("encodes");
        assert_eq!(token_ids, tokens(&want["input_ids"]), "{prompt}");
        let firm = want["firm_tokens"].as_u64().expect("a number") as usize;
        assert_eq!(greedy(&mut session, &token_ids, firm), tokens(&want["greedy"])[..firm], "{prompt}");
    }
    goldens::counted("gguf_moe: stories", results.len());
}

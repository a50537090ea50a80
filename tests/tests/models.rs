//! Whole models against the outputs of Hugging Face transformers: logits, residual stream, greedy tokens,
//! incremental decoding, ragged batches; embedding models' states and vectors.
//!
//! One test per golden folder would hide a folder that is never visited: each test walks all folders, through all
//! failures, and prints what it compared. `GIRIH_MODEL=name` picks one folder.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use girih_model::checkpoint::source::MemorySource;
use girih_model::{
    EvalOptions, GenerateOptions, Input, LoadError, LoadOptions, Model, Rows, RunError, Sampling, Session,
    SessionOptions, Tail, generate, perplexity,
};
use girih_ops::Gpu;
use girih_tests::goldens::{self, Tensors, assert_close};
use girih_tests::{each, files, on_device};
use serde_json::{Value, json};

/// A golden folder and its `reference.json`.
type Golden = (PathBuf, Value);

/// Every golden folder whose architecture this version knows, by name.
fn models(kind: &str) -> Vec<(String, Golden)> {
    let only = on_device::variable("GIRIH_MODEL");
    let known = girih_model::network::arch::MODEL_TYPES;
    let mut found: Vec<_> = goldens::folders("models")
        .into_iter()
        .map(|path| (name(&path), (goldens::json(&path.join("reference.json")), path)))
        .filter(|(_, (reference, _))| {
            reference["model_type"].as_str().is_some_and(|t| known.contains(&t))
                && reference["texts"].is_null() == (kind == "causal")
        })
        .map(|(name, (reference, path))| (name, (path, reference)))
        .collect();
    goldens::counted(&format!("models: {kind}"), found.len());
    found.retain(|(name, _)| only.as_ref().is_none_or(|only| only == name));
    found
}

async fn load(gpu: &Gpu, path: &Path) -> Arc<Model> {
    Model::load(gpu, files::source(path), LoadOptions::default(), |_| ())
        .await
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn session(model: &Arc<Model>, slots: u32) -> Session {
    Session::new(model, SessionOptions { slots, ..SessionOptions::default() }).expect("a session")
}

fn tolerance(reference: &Value) -> f64 {
    reference["suggested_atol_float32"].as_f64().unwrap_or(5e-4)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn ids(tensors: &Tensors, name: &str) -> Vec<u32> {
    tensors.ints(name).into_iter().map(|v| v as u32).collect()
}

async fn forward(session: &mut Session, token_ids: &[u32]) -> Vec<f32> {
    let input = [Input { slot: 0, token_ids }];
    let logits = session.forward(&input, Rows::All, None).expect("forward");
    logits.to_f32(session.gpu()).await.expect("read")
}

#[on_device("goldens/models")]
async fn logits_and_layers_are_those_of_transformers(gpu: Gpu) {
    each(models("causal"), async |name, (path, reference)| {
        let model = load(&gpu, &path).await;
        let tensors = Tensors::open(&path.join("reference.safetensors"));
        let atol = tolerance(&reference);
        let prompts: Vec<String> =
            reference["prompts"].as_object().expect("prompts").keys().cloned().collect();
        for prompt in &prompts {
            let mut session = session(&model, 1);
            let token_ids = ids(&tensors, &format!("{prompt}.input_ids"));
            let logits = forward(&mut session, &token_ids).await;
            assert_close(
                &format!("{name} {prompt}"),
                &logits,
                &tensors.f32(&format!("{prompt}.logits")).1,
                atol,
                1e-4,
            );
        }
        let mut session = session(&model, 1);
        let token_ids = ids(&tensors, "p17.input_ids");
        let mut trace = Vec::new();
        session
            .forward(&[Input { slot: 0, token_ids: &token_ids }], Rows::All, Some(&mut trace))
            .expect("forward");
        assert_eq!(trace.len() as u32, model.config().num_hidden_layers + 1);
        for (i, state) in trace.iter().enumerate() {
            let key = if i == 0 { "p17.hidden.embed".into() } else { format!("p17.hidden.layer{}", i - 1) };
            let got = state.to_f32(session.gpu()).await.expect("read");
            assert_close(&format!("{name} {key}"), &got, &tensors.f32(&key).1, atol, 1e-4);
        }
        println!("{name}: {} prompts, {} layers within {atol:.1e}", prompts.len(), trace.len() - 1);
    })
    .await;
}

/// States only go forward: what was forgotten, and what decode steps ran ahead of, is computed anew.
#[on_device("goldens/models")]
async fn states_go_on_from_the_tokens_that_are_left(gpu: Gpu) {
    let path = goldens::dir().join("models").join("minimax");
    let model = load(&gpu, &path).await;
    let ids = ids(&Tensors::open(&path.join("reference.safetensors")), "p17.input_ids");
    // Pieces of a sequence, one after the other, in a session of its own.
    let fresh = async |pieces: &[&[u32]]| {
        let mut session = session(&model, 2);
        let mut logits = Vec::new();
        for piece in pieces {
            logits = forward(&mut session, piece).await;
        }
        logits
    };
    let mut session = session(&model, 2);
    forward(&mut session, &ids[..9]).await;
    session.truncate(0, 5);
    let want = fresh(&[&ids[..5], &ids[5..12]]).await;
    assert_eq!(forward(&mut session, &ids[5..12]).await, want, "behind a truncated sequence");
    // Steps that nobody takes the tokens of.
    session.seek(Tail::Greedy, 0, ids[12]).expect("seek");
    session.step(Tail::Greedy, 3).expect("step");
    let want = fresh(&[&ids[..12], &ids[12..]]).await;
    assert_eq!(forward(&mut session, &ids[12..]).await, want, "behind steps that ran ahead");
    // Another sequence is another state; a step goes on from what is left, too.
    let input = [Input { slot: 1, token_ids: &ids[..3] }];
    session.forward(&input, Rows::All, None).expect("forward");
    session.truncate(0, 4);
    session.seek(Tail::Logits, 0, ids[4]).expect("seek");
    session.step(Tail::Logits, 1).expect("step");
    let plan = session.decode_plan(Tail::Logits).expect("plan");
    let got = plan.outputs()[0].to_f32(&gpu).await.expect("read");
    let want = fresh(&[&ids[..4], &ids[4..5]]).await;
    assert_close("a step behind a truncated sequence", &got, &want, 1e-4, 1e-4);
    session.truncate(0, 0);
    let want = fresh(&[&ids]).await;
    assert_eq!(forward(&mut session, &ids).await, want, "from the first token on");
}

#[on_device("goldens/models")]
async fn both_styles_of_config_give_the_same_model(gpu: Gpu) {
    let mut found = models("causal");
    found.retain(|(_, (path, _))| files::read(&path.join("config.alt.json")).is_ok());
    if on_device::variable("GIRIH_MODEL").is_none() {
        goldens::counted("models: causal in two styles", found.len());
    }
    each(found, async |name, (path, _)| {
        let mut source = MemorySource::new();
        for file in files::below(&path) {
            let bytes = || files::read(&path.join(&file)).expect("a file");
            match file.as_str() {
                "config.json" => (),
                "config.alt.json" => source = source.with("config.json", bytes()),
                file if file.starts_with("reference") => (),
                file => source = source.with(file, bytes()),
            }
        }
        let model = load(&gpu, &path).await;
        let token_ids: Vec<u32> = (0..60).map(|i| i * 7 % model.config().vocab_size).collect();
        let one = forward(&mut session(&model, 1), &token_ids).await;
        let other = forward(&mut session(&try_load(&gpu, source).await.expect("loads"), 1), &token_ids).await;
        assert_eq!(one, other, "{name}: config.alt.json");
    })
    .await;
}

#[on_device("goldens/models")]
async fn greedy_tokens_are_those_of_transformers(gpu: Gpu) {
    each(models("causal"), async |name, (path, reference)| {
        let model = load(&gpu, &path).await;
        let tensors = Tensors::open(&path.join("reference.safetensors"));
        let want = ids(&tensors, "greedy.tokens");
        let prompt = ids(&tensors, "p17.input_ids");
        let options = GenerateOptions {
            max_tokens: want.len(),
            sampling: Sampling::default(),
            stop: Vec::new(),
            stop_ids: Vec::new(),
            continues: true,
            slot: 0,
        };
        let mut session = session(&model, 1);
        let run = async |session: &mut Session| {
            let flow = |_: &str| ControlFlow::Continue(());
            generate(session, None, &prompt, &options, flow).await.expect("generate")
        };
        let first = run(&mut session).await;
        assert_eq!(first.token_ids, want, "{name} (margin {})", reference["greedy"]["min_top2_logit_margin"]);
        // Again, with the prompt in the cache already.
        let second = run(&mut session).await;
        assert_eq!(second.token_ids, want, "{name} from the cache");
        assert_eq!(second.cached_tokens, prompt.len() - 1);
        // The host's choice among all logits or candidates must be the same path at a temperature near zero.
        let cold = GenerateOptions {
            sampling: Sampling { temperature: 1e-4, ..Sampling::default() },
            ..options.clone()
        };
        let flow = |_: &str| ControlFlow::Continue(());
        let sampled = generate(&mut session, None, &prompt, &cold, flow).await.expect("generate");
        assert_eq!(sampled.token_ids, want, "{name} sampled on the host");
        println!("{name}: {} greedy tokens", want.len());
    })
    .await;
}

#[on_device("goldens/models")]
async fn incremental_decoding_gives_the_logits_of_one_pass(gpu: Gpu) {
    each(models("causal"), async |name, (path, reference)| {
        let model = load(&gpu, &path).await;
        let tensors = Tensors::open(&path.join("reference.safetensors"));
        let prompt = reference["incremental"]["prompt"].as_str().expect("a prompt");
        let token_ids = ids(&tensors, &format!("{prompt}.input_ids"));
        let steps: Vec<usize> = reference["incremental"]["step_sizes"]
            .as_array()
            .expect("steps")
            .iter()
            .map(|v| v.as_u64().expect("a number") as usize)
            .collect();
        let mut session = session(&model, 1);
        let mut logits = Vec::new();
        let mut at = 0;
        for step in steps {
            logits.extend(forward(&mut session, &token_ids[at..at + step]).await);
            at += step;
        }
        let (shape, want) = tensors.f32("incremental.logits_last8");
        let last = &logits[logits.len() - shape[0] * shape[1]..];
        assert_close(&format!("{name} incremental"), last, &want, tolerance(&reference), 1e-4);
    })
    .await;
}

#[on_device("goldens/models")]
async fn a_ragged_batch_gives_the_logits_of_each_sequence_alone(gpu: Gpu) {
    each(models("causal"), async |name, (path, reference)| {
        let model = load(&gpu, &path).await;
        let tensors = Tensors::open(&path.join("reference.safetensors"));
        let sequences: Vec<Vec<u32>> =
            serde_json::from_value(reference["batch"]["sequences"].clone()).expect("sequences");
        let mut session = session(&model, sequences.len() as u32);
        let inputs: Vec<Input<'_>> =
            (0..).zip(&sequences).map(|(slot, token_ids)| Input { slot, token_ids }).collect();
        let logits = session.forward(&inputs, Rows::All, None).expect("forward");
        let logits = logits.to_f32(session.gpu()).await.expect("read");
        let (shape, want) = tensors.f32("batch.logits");
        let (width, vocab) = (shape[1], shape[2]);
        let mask = tensors.ints("batch.attention_mask");
        let mut at = 0;
        for (b, sequence) in sequences.iter().enumerate() {
            for t in (0..width).filter(|t| mask[b * width + t] != 0) {
                let want = &want[(b * width + t) * vocab..][..vocab];
                let got = &logits[at * vocab..][..vocab];
                assert_close(&format!("{name} batch {b}"), got, want, tolerance(&reference), 1e-4);
                at += 1;
            }
            assert!(!sequence.is_empty());
        }
        assert_eq!(at * vocab, logits.len());
    })
    .await;
}

#[on_device("goldens/models")]
async fn texts_give_the_ids_and_logits_of_transformers(gpu: Gpu) {
    let compared = Cell::new(0);
    each(models("causal"), async |name, (path, reference)| {
        let tensors = Tensors::open(&path.join("reference.safetensors"));
        for (i, case) in reference["text_cases"].as_array().into_iter().flatten().enumerate() {
            let model = load(&gpu, &path).await;
            let tokenizer = model.tokenizer().expect("a tokenizer");
            let want: Vec<u32> = serde_json::from_value(case["input_ids"].clone()).expect("ids");
            let got = tokenizer.encode(case["text"].as_str().expect("a text"), true).expect("encodes");
            assert_eq!(got, want, "{name} text {i}");
            let logits = forward(&mut session(&model, 1), &got).await;
            let want = tensors.f32(&format!("text{i}.logits")).1;
            assert_close(&format!("{name} text {i}"), &logits, &want, tolerance(&reference), 1e-4);
            compared.set(compared.get() + 1);
        }
    })
    .await;
    if on_device::variable("GIRIH_MODEL").is_none() {
        goldens::counted("models: texts", compared.get());
    }
}

#[on_device("goldens/models")]
async fn embedding_models_give_the_vectors_of_transformers(gpu: Gpu) {
    each(models("embedding"), async |name, (path, reference)| {
        let model = load(&gpu, &path).await;
        let tensors = Tensors::open(&path.join("reference.safetensors"));
        let sequences: Vec<Vec<u32>> =
            serde_json::from_value(reference["sequences"].clone()).expect("sequences");
        for (text, want) in reference["texts"].as_array().expect("texts").iter().zip(&sequences) {
            let got = model.embedding_ids(text.as_str().expect("a text")).expect("encodes");
            // The goldens have longer texts than sentence-transformers would take: there the end token stays the last.
            let most = (model.embedding().max_length as usize).min(want.len());
            assert_eq!(got[..most - 1], want[..most - 1], "{name}: {text}");
            assert_eq!((got.len(), got.last()), (most, want.last()), "{name}: {text}");
        }
        let states = model.states(&sequences, None, None).await.expect("states");
        let (shape, want) = tensors.f32("batch.last_hidden_state");
        let (width, channels) = (shape[1], shape[2]);
        let mask = tensors.ints("batch.attention_mask");
        for (b, states) in states.iter().enumerate() {
            let rows = (0..width).filter(|t| mask[b * width + t] != 0);
            let want: Vec<f32> =
                rows.flat_map(|t| want[(b * width + t) * channels..][..channels].to_vec()).collect();
            assert_close(&format!("{name} states {b}"), states, &want, 5e-4, 1e-4);
        }
        let vectors = model.embed(&sequences).await.expect("embed").concat();
        assert_close(name, &vectors, &tensors.f32("batch.embedding").1, 2e-5, 1e-4);
        let mut trace = Vec::new();
        model.states(&sequences[1..2], None, Some(&mut trace)).await.expect("states");
        for (i, state) in trace.iter().enumerate() {
            let key =
                if i == 0 { "text1.hidden.embed".into() } else { format!("text1.hidden.layer{}", i - 1) };
            let got = state.to_f32(model.gpu()).await.expect("read");
            assert_close(&format!("{name} {key}"), &got, &tensors.f32(&key).1, 5e-4, 1e-4);
        }
        if tensors.has("pair.input_ids") {
            let pair = vec![ids(&tensors, "pair.input_ids")];
            let segments = vec![ids(&tensors, "pair.token_type_ids")];
            let states = model.states(&pair, Some(&segments), None).await.expect("states");
            assert_close("pair", &states[0], &tensors.f32("pair.last_hidden_state").1, 5e-4, 1e-4);
            let pooled = model.pooler(&pair[0], Some(&segments[0])).await.expect("pooler");
            assert_close("pooler", &pooled, &tensors.f32("pair.pooler_output").1, 5e-4, 1e-4);
        }
        println!("{name}: {} texts", sequences.len());
    })
    .await;
}

/// A golden checkpoint in memory, its configuration and tensor names changed.
fn changed(name: &str, config: &Value, rename: impl Fn(&str) -> String) -> MemorySource {
    let path = goldens::dir().join("models").join(name);
    let mut merged = goldens::json(&path.join("config.json"));
    for (field, value) in config.as_object().expect("an object") {
        merged[field] = value.clone();
    }
    let bytes = files::read(&path.join("model.safetensors")).expect("weights");
    let (len, rest) = bytes.split_at(8);
    let len = u64::from_le_bytes(len.try_into().expect("8 bytes")) as usize;
    let header: Value = serde_json::from_slice(&rest[..len]).expect("a header");
    let header: serde_json::Map<String, Value> =
        header.as_object().expect("an object").iter().map(|(k, v)| (rename(k), v.clone())).collect();
    let header = serde_json::to_vec(&header).expect("JSON");
    let file = [&(header.len() as u64).to_le_bytes(), header.as_slice(), &rest[len..]].concat();
    MemorySource::new().with("config.json", merged.to_string().into_bytes()).with("model.safetensors", file)
}

async fn try_load(gpu: &Gpu, source: MemorySource) -> Result<Arc<Model>, LoadError> {
    Model::load(gpu, Arc::new(source), LoadOptions::default(), |_| ()).await
}

#[on_device("goldens/models/llama_llama3rope")]
async fn what_a_checkpoint_has_counts_where_its_configuration_is_vague(gpu: Gpu) {
    let logits = async |source| {
        forward(&mut session(&try_load(&gpu, source).await.expect("loads"), 1), &[3, 1, 4, 1, 5]).await
    };
    let same = |name: &str| name.to_owned();
    let want = logits(changed("llama_llama3rope", &json!({}), same)).await;
    let multimodal = |name: &str| match name {
        "__metadata__" => name.to_owned(),
        name => format!("language_model.{name}"),
    };
    for (what, config) in [
        ("no architectures", json!({"architectures": null})),
        ("said to be tied, but has a head of its own", json!({"tie_word_embeddings": true})),
    ] {
        assert_eq!(logits(changed("llama_llama3rope", &config, same)).await, want, "{what}");
    }
    assert_eq!(
        logits(changed("llama_llama3rope", &json!({}), multimodal)).await,
        want,
        "a part of a larger model"
    );
    let error = try_load(&gpu, changed("llama_llama3rope", &json!({"attention_bias": true}), same))
        .await
        .expect_err("biases");
    assert!(
        matches!(&error, LoadError::Tensors { missing, .. } if missing[0].ends_with("q_proj.bias")),
        "{error}"
    );
}

/// A long prompt is computed in pieces; all of them take the frequencies of the whole.
#[on_device("goldens/models/phi3_longrope")]
async fn long_prompts_take_one_set_of_frequencies(gpu: Gpu) {
    let config = json!({"original_max_position_embeddings": 530, "max_position_embeddings": 1024});
    let model = try_load(&gpu, changed("phi3_longrope", &config, str::to_owned)).await.expect("loads");
    let prompt: Vec<u32> = (0..600).map(|i| i * 7 % model.config().vocab_size).collect();
    let whole = forward(&mut session(&model, 1), &prompt).await;
    let vocab_size = model.config().vocab_size as usize;
    let mut pieces = session(&model, 1);
    assert_eq!(pieces.rope_switch(), Some(530));
    let input = Input { slot: 0, token_ids: &prompt };
    let last = pieces.forward(&[input], Rows::Last, None).expect("forward");
    let last = last.to_f32(model.gpu()).await.expect("read");
    assert_close("long prompt", &last, &whole[599 * vocab_size..], 1e-4, 1e-4);
}

#[on_device("goldens/models/llama_llama3rope")]
async fn mistakes_of_the_caller_are_errors(gpu: Gpu) {
    let model = try_load(&gpu, changed("llama_llama3rope", &json!({}), str::to_owned)).await.expect("loads");
    let mut session = session(&model, 1);
    assert!(session.tokens(9).is_empty() && session.room(0) == 256);
    session.truncate(9, 0);
    session.note(9, 1);
    assert!(matches!(session.seek(Tail::Greedy, 9, 1), Err(RunError::Slot { got: 9, slots: 1 })));
    assert!(matches!(session.seek(Tail::Greedy, 0, 512), Err(RunError::TokenId { id: 512, .. })));
    session.seek(Tail::Greedy, 0, 1).expect("seek");
    assert!(matches!(
        session.step(Tail::Greedy, 257),
        Err(RunError::PromptTooLong { length: 257, context: 256 })
    ));
    let options = GenerateOptions {
        max_tokens: 1,
        sampling: Sampling::default(),
        stop: vec![],
        stop_ids: vec![],
        continues: true,
        slot: 9,
    };
    let generated = generate(&mut session, None, &[1], &options, |_| ControlFlow::Continue(())).await;
    assert!(matches!(generated, Err(RunError::Slot { .. })));
    let options = EvalOptions { window: 8, bos: None };
    let scored = perplexity(&mut session, &[1, 512], options, |_| ()).await;
    assert!(matches!(scored, Err(RunError::TokenId { id: 512, .. })));
}

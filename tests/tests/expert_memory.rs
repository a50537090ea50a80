//! Experts larger than memory: a model whose experts are read on demand computes what it computes with all of them on the
//! GPU, whatever its budget, down to one expert; what cannot be read is a typed error; the budget is kept.

use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use girih_kernels::Gpu;
use girih_model::checkpoint::source::BoxFuture;
use girih_model::{
    ByteSource, Eviction, ExpertMemory, GenerateOptions, Generated, Input, LoadError, LoadOptions,
    MemorySource, Model, Prefetch, Rows, RunError, Sampling, Session, SessionOptions, Tail, WeightPolicy,
    generate,
};
use girih_ops::{Format, QuantActivation};
use girih_tests::goldens::{self, Tensors, assert_close};
use girih_tests::{fable, fable_moe, files, gpu, load};
use pollster::block_on;
use serde_json::Value;

const PROMPT: &str = "Once upon a time, there was a little";

fn try_load(gpu: &Gpu, source: Arc<dyn ByteSource>, options: LoadOptions) -> Result<Arc<Model>, LoadError> {
    block_on(Model::load(gpu, source, options, |_| ()))
}

fn with(bytes: u64) -> LoadOptions {
    LoadOptions { experts: Some(ExpertMemory::new(bytes)), ..LoadOptions::default() }
}

/// Bytes of one expert of each kind, which the error about a budget of nothing names, and of all experts.
fn sizes(gpu: &Gpu, source: &Arc<dyn ByteSource>, weights: WeightPolicy) -> [u64; 2] {
    let options = LoadOptions { weights, ..with(0) };
    let one = match try_load(gpu, source.clone(), options) {
        Err(LoadError::ExpertMemory { got: 0, want, .. }) => want,
        other => panic!("a budget of nothing: {other:?}"),
    };
    let model = load(gpu, source.clone(), LoadOptions { weights, ..LoadOptions::default() });
    let decoder = model.decoder().expect("a decoder");
    let mixtures = decoder.blocks.iter().filter_map(|block| block.feed_forward().mixture());
    let all = mixtures.flat_map(|m| m.experts().expect("experts")).map(girih_ops::Matrix::bytes).sum();
    [one, all]
}

fn forward(session: &mut Session, token_ids: &[u32]) -> Vec<f32> {
    let logits = session.forward(&[Input { slot: 0, token_ids }], Rows::All, None).expect("forward");
    block_on(logits.to_f32(session.gpu())).expect("read")
}

fn session(model: &Arc<Model>, slots: u32) -> Session {
    Session::new(model, SessionOptions { slots, ..SessionOptions::default() }).expect("a session")
}

fn greedy(session: &mut Session, prompt: &[u32], max_tokens: usize) -> Result<Generated, RunError> {
    let options = GenerateOptions {
        max_tokens,
        sampling: Sampling::default(),
        stop: Vec::new(),
        stop_ids: Vec::new(),
        continues: true,
        slot: 0,
    };
    block_on(generate(session, None, prompt, &options, |_| ControlFlow::Continue(())))
}

fn ids(tensors: &Tensors, name: &str) -> Vec<u32> {
    tensors.ints(name).into_iter().map(|v| v as u32).collect()
}

/// The golden folders of mixtures of experts that this version knows.
fn mixtures() -> Vec<(String, PathBuf, Value)> {
    let known = girih_model::network::arch::MODEL_TYPES;
    let folders = goldens::folders("models").into_iter().map(|path| {
        let reference = goldens::json(&path.join("reference.json"));
        (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path, reference)
    });
    let has_experts = |path: &PathBuf| {
        let config = goldens::json(&path.join("config.json"));
        ["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"]
            .iter()
            .any(|key| config[key].as_u64().is_some_and(|n| n > 0))
    };
    let found: Vec<_> = folders
        .filter(|(_, path, reference)| {
            reference["model_type"].as_str().is_some_and(|t| known.contains(&t)) && has_experts(path)
        })
        .collect();
    goldens::counted("models: mixtures of experts", found.len());
    found
}

/// Every golden under budgets of one expert and of a quarter: logits, greedy tokens, logits step by step and of a ragged
/// batch; all budgets give the same bits.
#[test]
fn goldens_are_kept_whatever_the_memory_of_experts() {
    let gpu = gpu();
    let only = std::env::var("GIRIH_MODEL").ok();
    for (name, path, reference) in mixtures() {
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let tensors = Tensors::open(&path.join("reference.safetensors"));
        let atol = reference["suggested_atol_float32"].as_f64().unwrap_or(5e-4);
        let source = files::source(&path);
        let [one, all] = sizes(&gpu, &source, WeightPolicy::default());
        let whole = load(&gpu, source.clone(), LoadOptions::default());
        let prompts: Vec<&String> = reference["prompts"].as_object().expect("prompts").keys().collect();
        let mut of_budgets: Vec<Vec<f32>> = Vec::new();
        for (what, bytes) in [("one expert", one), ("a quarter", (all / 4).max(one)), ("all", all)] {
            let what = format!("{name}, {what}");
            let model = load(&gpu, source.clone(), with(bytes));
            assert!(model.weight_bytes() <= whole.weight_bytes() - all + bytes + biases(&whole), "{what}");
            let mut logits = Vec::new();
            for prompt in &prompts {
                let mut session = session(&model, 1);
                let token_ids = ids(&tensors, &format!("{prompt}.input_ids"));
                let got = forward(&mut session, &token_ids);
                let want = tensors.f32(&format!("{prompt}.logits")).1;
                assert_close(&format!("{what} {prompt}"), &got, &want, atol, 1e-4);
                logits.extend(got);
            }
            let want = ids(&tensors, "greedy.tokens");
            let mut session_of_one = session(&model, 1);
            let told = greedy(&mut session_of_one, &ids(&tensors, "p17.input_ids"), want.len());
            assert_eq!(told.expect("generates").token_ids, want, "{what}");
            logits.extend(incremental(&what, &model, &tensors, &reference, atol));
            logits.extend(ragged(&what, &model, &tensors, &reference, atol));
            of_budgets.push(logits);
            let counts = model.experts().expect("a cache").counts();
            assert!(counts.misses > 0 && counts.passes > 0 && counts.rounds >= counts.passes, "{counts:?}");
            if bytes == all {
                assert_eq!(counts.rounds, counts.passes, "{what}: all experts find room at once");
            }
        }
        for other in &of_budgets[1..] {
            assert!(of_budgets[0] == *other, "{name}: budgets give other bits");
        }
        println!("{name}: one expert has {one} bytes, all have {all}; three budgets, the same bits");
    }
}

/// Bytes that biases of experts may take beside the budget.
fn biases(model: &Model) -> u64 {
    let decoder = model.decoder().expect("a decoder");
    let mixtures = decoder.blocks.iter().filter_map(|block| block.feed_forward().mixture());
    mixtures.flat_map(|m| m.experts().expect("experts")).map(|w| 4 * u64::from(w.n)).sum::<u64>() * 2
}

fn incremental(what: &str, model: &Arc<Model>, tensors: &Tensors, reference: &Value, atol: f64) -> Vec<f32> {
    let prompt = reference["incremental"]["prompt"].as_str().expect("a prompt");
    let token_ids = ids(tensors, &format!("{prompt}.input_ids"));
    let mut session = session(model, 1);
    let (mut logits, mut at) = (Vec::new(), 0);
    for step in reference["incremental"]["step_sizes"].as_array().expect("steps") {
        let step = step.as_u64().expect("a number") as usize;
        logits.extend(forward(&mut session, &token_ids[at..at + step]));
        at += step;
    }
    let (shape, want) = tensors.f32("incremental.logits_last8");
    let last = &logits[logits.len() - shape[0] * shape[1]..];
    assert_close(&format!("{what} incremental"), last, &want, atol, 1e-4);
    logits
}

fn ragged(what: &str, model: &Arc<Model>, tensors: &Tensors, reference: &Value, atol: f64) -> Vec<f32> {
    let sequences: Vec<Vec<u32>> =
        serde_json::from_value(reference["batch"]["sequences"].clone()).expect("sequences");
    let mut session = session(model, sequences.len() as u32);
    let inputs: Vec<Input<'_>> =
        (0..).zip(&sequences).map(|(slot, token_ids)| Input { slot, token_ids }).collect();
    let logits = session.forward(&inputs, Rows::All, None).expect("forward");
    let logits = block_on(logits.to_f32(session.gpu())).expect("read");
    let (shape, want) = tensors.f32("batch.logits");
    let (width, vocab) = (shape[1], shape[2]);
    let mask = tensors.ints("batch.attention_mask");
    let real = (0..sequences.len() * width).filter(|&i| mask[i] != 0);
    let want: Vec<f32> = real.flat_map(|i| want[i * vocab..][..vocab].to_vec()).collect();
    assert_close(&format!("{what} ragged"), &logits, &want, atol, 1e-4);
    logits
}

/// fable-moe under all, a quarter and one of its experts: the same story, the same bits of logits for a long prompt (tiles)
/// as with all experts on the GPU, whoever makes room and whatever is guessed; also where x enters products as integers.
#[test]
fn fable_moe_tells_the_same_story_under_a_quarter_of_its_experts() {
    let gpu = gpu();
    let source = fable_moe();
    let int8 = WeightPolicy { force: Some(Format::Q8_0.into()), activations: Some(QuantActivation::INT8) };
    for (weights, quarter_only) in [(WeightPolicy::default(), false), (int8, true)] {
        let [one, all] = sizes(&gpu, &source, weights);
        let whole = load(&gpu, source.clone(), LoadOptions { weights, ..LoadOptions::default() });
        let prompt = whole.tokenizer().expect("a tokenizer").encode(PROMPT, true).expect("encodes");
        let long: Vec<u32> = (0..200).map(|i| i * 97 % whole.config().vocab_size).collect();
        let want = greedy(&mut session(&whole, 1), &prompt, 80).expect("generates").token_ids;
        let want_logits = forward(&mut session(&whole, 1), &long);
        let quarter = all / 4;
        let runs = [
            (quarter, Eviction::Lru, Prefetch::Off),
            (one, Eviction::Lru, Prefetch::Off),
            (one, Eviction::Lfu, Prefetch::Gate),
            (quarter, Eviction::Lfu, Prefetch::Gate),
            (quarter, Eviction::Lru, Prefetch::Statistics),
            (all, Eviction::Lru, Prefetch::Off),
        ];
        for (bytes, eviction, prefetch) in runs.into_iter().take(if quarter_only { 1 } else { runs.len() }) {
            let what = format!("{bytes} of {all} bytes, {}, prefetch {}", eviction.name(), prefetch.name());
            let experts = Some(ExpertMemory { bytes, eviction, prefetch });
            let options = LoadOptions { weights, experts, ..LoadOptions::default() };
            let model = load(&gpu, source.clone(), options);
            let mut session = session(&model, 1);
            let logits = forward(&mut session, &long);
            assert!(logits == want_logits, "{what}: other bits than with all experts there");
            let got = greedy(&mut session, &prompt, 80).expect("generates");
            assert_eq!(got.token_ids, want, "{what}");
            let counts = model.experts().expect("a cache").counts();
            println!("{what}: {counts:?}");
            assert_eq!(counts.prefetch_hits > 0, prefetch != Prefetch::Off, "{what}: guesses come true");
            assert!(counts.prefetch_hits <= counts.prefetched && counts.prefetch_hits <= counts.hits);
            assert_eq!(counts.bytes, (counts.misses + counts.prefetched) * one, "{what}");
            if bytes == all {
                assert_eq!(counts.misses, 4 * 8, "each expert is read once");
            }
        }
    }
}

/// The memory that loading and running take is what it is without experts, and the budget.
#[test]
fn the_budget_is_kept() {
    let gpu = gpu();
    let source = fable_moe();
    let [one, all] = sizes(&gpu, &source, WeightPolicy::default());
    let made = |options: LoadOptions| {
        let before = gpu.counters().buffer_bytes;
        let model = load(&gpu, source.clone(), options);
        let loaded = gpu.counters().buffer_bytes - before;
        let mut session = session(&model, 1);
        forward(&mut session, &[5, 6, 7]);
        greedy(&mut session, &[5, 6, 7], 4).expect("generates");
        let before = gpu.counters().buffer_bytes;
        greedy(&mut session, &[9, 8, 7], 40).expect("generates");
        (loaded, gpu.counters().buffer_bytes - before)
    };
    let (whole, _) = made(LoadOptions::default());
    for bytes in [one, one + 1, 3 * one, all / 4, all / 2] {
        let (loaded, running) = made(with(bytes));
        let places = bytes / one;
        assert_eq!(loaded, whole - all + places * one, "{places} places of {bytes} bytes");
        assert!(running < one, "{running} bytes of buffers made while tokens are decoded");
    }
}

/// Two sessions of one model take turns: neither is given what the other has brought in between.
#[test]
fn sessions_share_a_cache() {
    let gpu = gpu();
    let source = fable_moe();
    let [one, _] = sizes(&gpu, &source, WeightPolicy::default());
    let model = load(&gpu, source.clone(), with(2 * one));
    let alone = |seed: u32| {
        let ids: Vec<u32> = (0..6).map(|i| (i + seed) * 97 % 4096).collect();
        let model = load(&gpu, source.clone(), with(2 * one));
        let mut session = session(&model, 1);
        ids.iter().map(|&id| forward(&mut session, &[id])).collect::<Vec<_>>()
    };
    let mut sessions = [session(&model, 1), session(&model, 1)];
    let want = [alone(3), alone(1000)];
    for i in 0..6u32 {
        for ((session, seed), want) in sessions.iter_mut().zip([3, 1000]).zip(&want) {
            assert!(forward(session, &[(i + seed) * 97 % 4096]) == want[i as usize], "token {i} of {seed}");
        }
    }
}

/// What the host takes part in does not run as a whole, and sampling works as without a cache.
#[test]
fn steps_run_in_segments() {
    let gpu = gpu();
    let source = fable_moe();
    let [one, _] = sizes(&gpu, &source, WeightPolicy::default());
    let model = load(&gpu, source.clone(), with(3 * one));
    let mut session = session(&model, 1);
    let mut frame = session.record_step(Tail::Greedy).expect("records");
    assert_eq!(frame.breaks().len(), 4, "one for each layer");
    assert!(frame.submit().is_err() && block_on(frame.run_twins(|_| true)).is_err());
    assert!(frame.plan().is_err());
    for tail in [Tail::Greedy, Tail::Candidates, Tail::Logits] {
        session.seek(tail, 0, 5).expect("seeks");
        session.step(tail, 1).expect("steps");
    }
    let routing = block_on(model.routing(&[1, 2, 3, 4])).expect("routes");
    let whole = load(&gpu, source, LoadOptions::default());
    let want = block_on(whole.routing(&[1, 2, 3, 4])).expect("routes");
    for (layer, want) in routing.layers.iter().zip(&want.layers) {
        let split = |slots: &[(u32, f32)]| -> (Vec<u32>, Vec<f32>) { slots.iter().copied().unzip() };
        for (slots, want) in layer.tokens.iter().zip(&want.tokens) {
            let ((experts, weights), (want, want_weights)) = (split(slots), split(want));
            assert_eq!(experts, want, "layer {}", layer.layer);
            assert_close("weights", &weights, &want_weights, 1e-4, 1e-4);
        }
    }
    assert_eq!(routing.layers.len(), 4);
}

/// A source whose file shrinks when it is told to.
#[derive(Debug)]
struct Shrinking {
    files: Arc<dyn ByteSource>,
    shrunk: AtomicBool,
    read: Mutex<u64>,
}

impl ByteSource for Shrinking {
    fn read<'a>(&'a self, file: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Vec<u8>, LoadError>> {
        *self.read.lock().expect("not poisoned") += range.end - range.start;
        if self.shrunk.load(Ordering::Relaxed) {
            let error = LoadError::Truncated { file: file.to_owned(), got: 100, want: range.end };
            return Box::pin(async { Err(error) });
        }
        self.files.read(file, range)
    }

    fn size<'a>(&'a self, file: &'a str) -> BoxFuture<'a, Result<Option<u64>, LoadError>> {
        self.files.size(file)
    }

    fn list(&self) -> Option<Vec<String>> {
        self.files.list()
    }
}

#[test]
fn a_file_that_shrinks_is_an_error_that_names_layer_and_expert() {
    let gpu = gpu();
    let source: Arc<dyn ByteSource> = fable_moe();
    let [one, _] = sizes(&gpu, &source, WeightPolicy::default());
    let files = Arc::new(Shrinking { files: source, shrunk: AtomicBool::new(false), read: Mutex::new(0) });
    let model = load(&gpu, files.clone(), with(2 * one));
    let after_load = *files.read.lock().expect("not poisoned");
    let mut running = session(&model, 1);
    let want = forward(&mut running, &[1, 2, 3]);
    assert!(*files.read.lock().expect("not poisoned") > after_load, "experts are read while the model runs");
    files.shrunk.store(true, Ordering::Relaxed);
    let mut other = session(&model, 1);
    let error = other.forward(&[Input { slot: 0, token_ids: &[1, 2, 3] }], Rows::All, None);
    match error.expect_err("nothing can be read") {
        RunError::Expert { layer: 0, expert, source } => {
            assert!(expert < 8 && matches!(*source, LoadError::Truncated { got: 100, .. }), "{source}");
        }
        other => panic!("{other}"),
    }
    let said = greedy(&mut other, &[1, 2, 3], 4).expect_err("nothing can be read").to_string();
    assert!(said.starts_with("layer 0, expert ") && said.contains("truncated"), "{said}");
    // Once it is whole again, so are the results.
    files.shrunk.store(false, Ordering::Relaxed);
    let mut again = session(&model, 1);
    assert!(forward(&mut again, &[1, 2, 3]) == want);
}

/// A pass that ends in its first layer has moved that layer's states; the next one starts from the tokens that are there.
#[test]
fn a_pass_that_failed_leaves_no_trace_in_states() {
    let gpu = gpu();
    let source: Arc<dyn ByteSource> = files::source(&goldens::dir().join("models/minimax"));
    let [one, _] = sizes(&gpu, &source, WeightPolicy::default());
    let files = Arc::new(Shrinking { files: source, shrunk: AtomicBool::new(false), read: Mutex::new(0) });
    let model = load(&gpu, files.clone(), with(one));
    let mut whole = session(&model, 1);
    let want = [[1, 2, 3], [4, 5, 6]].map(|ids| forward(&mut whole, &ids));
    let mut running = session(&model, 1);
    assert!(forward(&mut running, &[1, 2, 3]) == want[0]);
    files.shrunk.store(true, Ordering::Relaxed);
    let error = running.forward(&[Input { slot: 0, token_ids: &[4, 5, 6] }], Rows::All, None);
    assert!(matches!(error, Err(RunError::Expert { .. })), "{:?}", error.map(|_| ()));
    files.shrunk.store(false, Ordering::Relaxed);
    assert!(forward(&mut running, &[4, 5, 6]) == want[1]);
}

#[test]
fn budgets_that_hold_no_expert_and_models_without_experts_are_refused() {
    let gpu = gpu();
    let source = fable_moe();
    let [one, _] = sizes(&gpu, &source, WeightPolicy::default());
    match try_load(&gpu, source.clone(), with(one - 1)) {
        Err(LoadError::ExpertMemory { got, want, kinds: 1 }) => assert_eq!([got, want], [one - 1, one]),
        other => panic!("{other:?}"),
    }
    assert!(matches!(try_load(&gpu, fable(), with(one)), Err(LoadError::NoExperts)));
    // A shard without the experts of a layer.
    let mut files = MemorySource::new();
    for name in files::below(&files::root().join("assets/fable-moe")) {
        let mut bytes = files::read(&files::root().join("assets/fable-moe").join(&name)).expect("a file");
        if name == "model.safetensors" {
            let (from, to) = (b"layers.2.mlp.experts.5.up_proj", b"layers.2.mlp.experts.5.xp_proj");
            let at = bytes.windows(from.len()).position(|w| w == from).expect("the expert's name");
            bytes[at..at + to.len()].copy_from_slice(to);
        }
        files = files.with(&name, bytes);
    }
    let error = try_load(&gpu, Arc::new(files), with(one)).expect_err("an expert is missing").to_string();
    assert!(error.contains("layers.2.mlp.experts.5.up_proj"), "{error}");
}

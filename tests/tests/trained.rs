//! Trained models: greedy text, chat and perplexity are those of transformers; decoding creates nothing after the
//! first token; a decode step has few dispatches.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use girih_model::{
    Conversation, EvalOptions, GenerateOptions, LoadOptions, Model, Sampling, Session, SessionOptions, Tail,
    WeightPolicy, compare, generate, perplexity,
};
use girih_ops::{Format, Gpu, QuantActivation};
use girih_tests::{files, goldens, on_device};
use serde_json::Value;

async fn load(gpu: &Gpu, path: &Path) -> Arc<Model> {
    load_with(gpu, path, WeightPolicy::default()).await
}

async fn load_with(gpu: &Gpu, path: &Path, weights: WeightPolicy) -> Arc<Model> {
    let options = LoadOptions { weights, ..LoadOptions::default() };
    Model::load(gpu, files::source(path), options, |_| ())
        .await
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

async fn fable(gpu: &Gpu) -> (Arc<Model>, Value) {
    trained(gpu, "fable-5m").await
}

async fn trained(gpu: &Gpu, name: &str) -> (Arc<Model>, Value) {
    let golden = goldens::dir().join(format!("trained/{name}/golden.json"));
    (load(gpu, &files::root().join(format!("assets/{name}"))).await, goldens::json(&golden))
}

/// The third-party model lies beside developers' checkouts only.
fn stories260k() -> Option<PathBuf> {
    let path = files::root().join("../shared/models/stories260k");
    path.join("config.json").exists().then_some(path)
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("a list of ids")
}

fn greedy(max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_tokens,
        sampling: Sampling::default(),
        stop: vec![],
        stop_ids: vec![],
        continues: true,
        slot: 0,
    }
}

async fn run(session: &mut Session, prompt: &[u32], options: &GenerateOptions) -> girih_model::Generated {
    let model = session.model().clone();
    let tokenizer = model.tokenizer().expect("a tokenizer");
    let mut streamed = String::new();
    let generated = generate(session, Some(tokenizer), prompt, options, |piece| {
        streamed.push_str(piece);
        ControlFlow::Continue(())
    })
    .await
    .expect("generate");
    assert_eq!(streamed, generated.text, "what is streamed is the text");
    generated
}

async fn check_greedy(session: &mut Session, case: &Value) {
    let model = session.model().clone();
    let prompt = ids(&case["prompt_ids"]);
    if let Some(text) = case["prompt"].as_str() {
        assert_eq!(model.tokenizer().expect("tokenizer").encode(text, true).expect("encodes"), prompt);
    }
    let want = ids(&case["new_token_ids"]);
    let got = run(session, &prompt, &greedy(want.len())).await;
    assert_eq!(got.token_ids, want, "{}", case["prompt"]);
    assert_eq!(got.text, case["text"].as_str().expect("a text"));
}

#[on_device("goldens/trained", "assets/fable-5m")]
async fn fable_tells_the_golden_stories(gpu: Gpu) {
    tells_the_golden_stories(fable(&gpu).await).await;
}

#[on_device("goldens/trained", "assets/fable-moe")]
async fn the_mixture_tells_the_golden_stories(gpu: Gpu) {
    tells_the_golden_stories(trained(&gpu, "fable-moe").await).await;
}

async fn tells_the_golden_stories((model, golden): (Arc<Model>, Value)) {
    let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
    for case in golden["greedy"].as_array().expect("cases") {
        check_greedy(&mut session, case).await;
    }
    let chat = &golden["chat_greedy"];
    let messages = chat["messages"].as_array().expect("messages");
    let conversation = Conversation {
        messages: messages.clone().into(),
        add_generation_prompt: true,
        ..Conversation::default()
    };
    let rendered = model.chat().render(&conversation).expect("renders");
    assert_eq!(rendered, chat["rendered"].as_str().expect("a text"));
    assert_eq!(
        model.tokenizer().expect("tokenizer").encode(&rendered, false).expect("encodes"),
        ids(&chat["prompt_ids"])
    );
    check_greedy(&mut session, chat).await;
}

#[on_device("goldens/trained", "assets/fable-5m")]
async fn fable_has_the_golden_perplexity(gpu: Gpu) {
    has_the_golden_perplexity(fable(&gpu).await).await;
}

#[on_device("goldens/trained", "assets/fable-moe")]
async fn the_mixture_has_the_golden_perplexity(gpu: Gpu) {
    has_the_golden_perplexity(trained(&gpu, "fable-moe").await).await;
}

/// One pass says for every token and layer which experts it went to.
#[on_device("assets/fable-moe")]
async fn the_mixture_says_where_tokens_went(gpu: Gpu) {
    let model = load(&gpu, &files::root().join("assets/fable-moe")).await;
    let token_ids: Vec<u32> = (0..20).map(|i| 300 + 17 * i).collect();
    let routing = model.routing(&token_ids).await.expect("routes");
    assert_eq!(
        routing.layers.iter().map(|l| (l.layer, l.experts)).collect::<Vec<_>>(),
        [0, 1, 2, 3].map(|l| (l, 8))
    );
    for layer in &routing.layers {
        assert_eq!(layer.tokens.len(), token_ids.len());
        for routes in &layer.tokens {
            assert!(
                routes.len() == 2 && routes[0].0 != routes[1].0 && routes.iter().all(|r| r.0 < 8),
                "{routes:?}"
            );
            let sum: f32 = routes.iter().map(|r| r.1).sum();
            assert!((sum - 1.0).abs() < 1e-5 && routes[0].1 >= routes[1].1, "{routes:?}");
        }
    }
    // The beginning goes where it goes without the rest.
    let shorter = model.routing(&token_ids[..7]).await.expect("routes");
    for (all, some) in routing.layers.iter().zip(&shorter.layers) {
        for (a, b) in all.tokens.iter().zip(&some.tokens) {
            assert_eq!(a.iter().map(|r| r.0).collect::<Vec<_>>(), b.iter().map(|r| r.0).collect::<Vec<_>>());
        }
    }
    let dense = load(&gpu, &files::root().join("assets/fable-5m")).await;
    assert!(dense.routing(&token_ids).await.expect("nothing").layers.is_empty());
}

async fn has_the_golden_perplexity((model, golden): (Arc<Model>, Value)) {
    let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
    for key in ["perplexity", "perplexity_synthetic"] {
        let golden = &golden[key];
        let window = golden["chunk"].as_u64().expect("a number") as usize;
        let tokenizer = model.tokenizer().expect("tokenizer");
        let mut token_ids =
            tokenizer.encode(golden["text"].as_str().expect("a text"), false).expect("encodes");
        token_ids.truncate(golden["tokens"].as_u64().expect("a number") as usize);
        assert_eq!(token_ids, ids(&golden["token_ids"]), "{key}");
        let bos = model.bos_id();
        let got = perplexity(&mut session, &token_ids, EvalOptions { window, bos }, |_| ()).await;
        let got = got.expect("perplexity");
        let want = golden["nll_per_token"].as_f64().expect("a number");
        assert!((got.nll - want).abs() < 2e-4, "{key}: {} nats, want {want}", got.nll);
    }
}

#[test]
fn stories260k_tells_the_golden_stories() {
    let Some(path) = stories260k() else {
        girih_tests::skipped("the model stories260k is not there");
        return;
    };
    let model = pollster::block_on(load(&girih_tests::gpu(), &path));
    let golden = goldens::json(&path.join("reference.json"));
    let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
    for case in golden["greedy"].as_array().expect("cases") {
        let want = ids(&case["new_token_ids"]);
        let got = pollster::block_on(run(&mut session, &ids(&case["prompt_ids"]), &greedy(want.len())));
        assert_eq!(got.token_ids, want, "{}", case["prompt"]);
    }
    let story = &golden["story"];
    let token_ids = ids(&story["token_ids"]);
    let got = pollster::block_on(perplexity(
        &mut session,
        &token_ids,
        EvalOptions { window: 512, bos: None },
        |_| (),
    ));
    let got = got.expect("perplexity");
    let want = story["mean_nll"].as_f64().expect("a number");
    assert!((got.nll - want).abs() < 1e-4, "{} nats, want {want}", got.nll);
}

#[on_device("goldens/trained", "assets/fable-5m")]
async fn decoding_creates_nothing_after_the_first_token(gpu: Gpu) {
    let (model, golden) = fable(&gpu).await;
    let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
    let prompt = ids(&golden["greedy"][0]["prompt_ids"]);
    for sampling in [Sampling::default(), Sampling { temperature: 0.8, top_k: 40, ..Sampling::default() }] {
        let options = GenerateOptions { sampling, ..greedy(40) };
        run(&mut session, &prompt, &options).await; // warm-up: compiles, fills pools
        let model = session.model().clone();
        let gpu = model.gpu().clone();
        let mut first = None;
        let _ = generate(&mut session, model.tokenizer().ok(), &prompt, &options, |_| {
            first.get_or_insert(gpu.counters());
            ControlFlow::Continue(())
        })
        .await
        .expect("generate");
        let (before, after) = (first.expect("some text"), gpu.counters());
        assert_eq!(before.pipelines, after.pipelines, "pipelines");
        assert_eq!(before.bind_groups, after.bind_groups, "bind groups");
        assert_eq!(before.buffers, after.buffers, "buffers");
    }
}

#[test]
fn a_decode_step_has_few_dispatches() {
    let (model, _) = pollster::block_on(fable(&girih_tests::gpu()));
    let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
    let plan = session.decode_plan(Tail::Greedy).expect("a plan");
    let layers = model.config().num_hidden_layers as usize;
    assert!(plan.plan().num_dispatches() <= 7 * layers + 5, "{} dispatches", plan.plan().num_dispatches());
}

/// Rounded to nearest on load: the divergence from the model as it is, the story, the dispatches.
#[on_device("goldens/trained", "assets/fable-5m")]
async fn quantised_on_load_the_model_tells_its_stories(gpu: Gpu) {
    let (dense, golden) = fable(&gpu).await;
    let text = golden["perplexity_synthetic"]["text"].as_str().expect("a text");
    let token_ids = dense.tokenizer().expect("a tokenizer").encode(text, true).expect("encodes");
    let story = &golden["greedy"][0];
    let mut reference = Session::new(&dense, SessionOptions::default()).expect("a session");
    // Format, activations, largest divergence in nats per token, golden tokens in front of the first other one.
    let float = QuantActivation::Float;
    let cases = [
        (Format::Q8_0, float, 5e-5, 16),
        (Format::Q8_0, QuantActivation::INT8, 2e-4, 16),
        (Format::Q4_K, float, 5e-3, 2),
        (Format::Q4_0, QuantActivation::INT8, 1e-2, 2),
    ];
    for (format, activation, largest, same) in cases {
        let policy = WeightPolicy { force: Some(format.into()), activations: Some(activation) };
        let model = load_with(&gpu, &files::root().join("assets/fable-5m"), policy).await;
        let what = format!("{format} {activation}");
        let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
        let plan = session.decode_plan(Tail::Greedy).expect("a plan");
        let labels = plan.plan().labels().join(" ");
        let layers = model.config().num_hidden_layers as usize;
        assert!(plan.plan().num_dispatches() <= 7 * layers + 5, "{what}: {labels}");
        assert_eq!(labels.contains("gemv_int/"), activation != float, "{what}: {labels}");
        let prompt = ids(&story["prompt_ids"]);
        // A few more than have to agree.
        let want = &ids(&story["new_token_ids"])[..same + 8];
        let got = run(&mut session, &prompt, &greedy(want.len())).await.token_ids;
        let equal = got.iter().zip(want).take_while(|(a, b)| a == b).count();
        let options = EvalOptions { window: 128, bos: None };
        let end = token_ids.len().min(257);
        let c = compare(&mut session, &mut reference, &token_ids[..end], options, |_| ())
            .await
            .expect("compares");
        println!("{what}: KL {:.6}, {equal} of {} tokens", c.kl, want.len());
        assert!(c.kl <= largest && c.kl > 0.0, "{what}: KL {}", c.kl);
        assert!(equal >= same, "{what}: {equal} tokens");
    }
}

#[on_device("goldens/trained", "assets/fable-5m")]
async fn stopping_cancelling_and_full_contexts_end_cleanly(gpu: Gpu) {
    let (model, golden) = fable(&gpu).await;
    let context = 24;
    let options = SessionOptions { context: Some(context), ..SessionOptions::default() };
    let mut session = Session::new(&model, options).expect("a session");
    let prompt = ids(&golden["greedy"][0]["prompt_ids"]);
    let full = run(&mut session, &prompt, &greedy(100)).await;
    assert_eq!(full.finish, girih_model::Finish::Context);
    assert_eq!(prompt.len() + full.token_ids.len(), context as usize + 1);
    let stop = GenerateOptions { stop: vec!["puppy".into()], ..greedy(100) };
    let stopped = run(&mut session, &prompt, &stop).await;
    assert_eq!(stopped.finish, girih_model::Finish::Stop);
    assert_eq!(stopped.text, ", there was a merry ");
    let mut pieces = 0;
    let cancelled = generate(&mut session, model.tokenizer().ok(), &prompt, &greedy(100), |_| {
        pieces += 1;
        if pieces == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .await
    .expect("generate");
    assert_eq!(cancelled.finish, girih_model::Finish::Cancelled);
    assert!(cancelled.token_ids.len() < 8);
    // And the session is as good as new.
    assert_eq!(run(&mut session, &prompt, &greedy(10)).await.token_ids, full.token_ids[..10]);
}

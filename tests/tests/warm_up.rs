//! What loading prepares: after the warm-up nothing is compiled, whatever the length of a prompt. And stopping a
//! generation from elsewhere.

use std::ops::ControlFlow;
use std::sync::Arc;

use girih_model::checkpoint::source::MemorySource;
use girih_model::{
    Finish, GenerateOptions, Input, LoadOptions, Model, Rows, Sampling, Session, SessionOptions,
    WeightPolicy, generate,
};
use girih_ops::{Format, QuantActivation};
use girih_tests::{fable, fable_moe, files, goldens, gpu, load};

fn options(max_tokens: usize, temperature: f32) -> GenerateOptions {
    let sampling = Sampling { temperature, seed: 1, ..Sampling::default() };
    GenerateOptions { max_tokens, sampling, stop: vec![], stop_ids: vec![], continues: true, slot: 0 }
}

fn model(weights: WeightPolicy) -> Arc<Model> {
    load(&gpu(), fable(), LoadOptions { weights, ..LoadOptions::default() })
}

fn prompt(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| 3 + i * 7 % 500).collect()
}

#[test]
fn nothing_is_compiled_after_the_warm_up() {
    let int4 = WeightPolicy { force: Some(Format::Q4_0.into()), activations: None };
    let int8 = WeightPolicy { force: Some(Format::Q8_0.into()), activations: Some(QuantActivation::INT8) };
    for weights in [WeightPolicy::default(), int4, int8] {
        let lengths = (1..=34).chain([48, 63, 64, 65, 100, 127, 128, 129, 200, 256, 257, 470, 475]);
        compiles_nothing_after_the_warm_up(&model(weights), lengths);
    }
}

/// Few rows take the norms behind blocks along on GPUs, more do not.
#[test]
fn norms_behind_blocks_are_warmed_up_too() {
    let source = files::source(&goldens::dir().join("models/gemma2"));
    let model = load(&gpu(), source, LoadOptions::default());
    compiles_nothing_after_the_warm_up(&model, [1, 2, 3, 4, 5, 17, 64].into_iter());
}

/// Few slots go to their experts one by one, more in tiles.
#[test]
fn mixtures_are_warmed_up_too() {
    let model = load(&gpu(), fable_moe(), LoadOptions::default());
    compiles_nothing_after_the_warm_up(&model, [1, 2, 4, 5, 6, 7, 17, 40, 64, 129].into_iter());
}

/// Prompts of these lengths, a turn behind each, and decoding.
fn compiles_nothing_after_the_warm_up(model: &Arc<Model>, lengths: impl Iterator<Item = usize>) {
    let gpu = model.gpu().clone();
    let mut session = Session::new(model, SessionOptions::default()).expect("a session");
    let mut steps = Vec::new();
    pollster::block_on(session.warm_up(|done, total| steps.push((done, total)))).expect("warms up");
    let total = steps[0].1;
    assert!(total > 5 && steps.last() == Some(&(total, total)), "{steps:?}");
    assert!(steps.windows(2).all(|w| w[0].0 < w[1].0), "progress goes forward: {steps:?}");
    assert!(session.tokens(0).is_empty(), "the cache is empty again");
    let made = gpu.counters().pipelines;
    assert_eq!(made, total as u64, "all that was compiled was announced");
    for len in lengths {
        let ids = prompt(len);
        session.truncate(0, 0);
        session.forward(&[Input { slot: 0, token_ids: &ids }], Rows::Last, None).expect("forward");
        // A second turn behind it.
        session
            .forward(&[Input { slot: 0, token_ids: &ids[..len.min(37)] }], Rows::Last, None)
            .expect("forward");
        assert_eq!(gpu.counters().pipelines, made, "a prompt of {len} tokens compiled something");
    }
    for temperature in [0.0, 0.8] {
        pollster::block_on(generate(&mut session, None, &prompt(5), &options(4, temperature), |_| {
            ControlFlow::Continue(())
        }))
        .expect("generates");
    }
    assert_eq!(gpu.counters().pipelines, made, "decoding compiled something");
}

#[test]
fn a_generation_is_stopped_from_elsewhere() {
    let model = model(WeightPolicy::default());
    let tokenizer = model.tokenizer().expect("a tokenizer");
    let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
    let canceller = session.canceller().clone();
    let ids = tokenizer.encode("Once upon a time", true).expect("encodes");
    for temperature in [0.0, 0.8] {
        let mut pieces = 0;
        let generated = pollster::block_on(generate(
            &mut session,
            Some(tokenizer),
            &ids,
            &options(100, temperature),
            |_| {
                pieces += 1;
                if pieces == 3 {
                    canceller.cancel();
                }
                ControlFlow::Continue(())
            },
        ))
        .expect("generates");
        assert_eq!(generated.finish, Finish::Cancelled);
        assert!((1..20).contains(&generated.token_ids.len()), "{} tokens", generated.token_ids.len());
    }
    // The next one is not affected, and continues what is cached.
    let all = pollster::block_on(generate(&mut session, Some(tokenizer), &ids, &options(20, 0.0), |_| {
        ControlFlow::Continue(())
    }))
    .expect("generates");
    assert_eq!((all.finish, all.token_ids.len()), (Finish::Length, 20));
}

#[test]
fn a_long_prompt_is_stopped_between_its_pieces() {
    // The models at hand have short contexts; nothing but the configuration says so.
    let dir = goldens::dir().join("models/qwen3");
    let read = |file: &str| std::fs::read(dir.join(file)).expect("a file of the golden model");
    let config = String::from_utf8(read("config.json")).expect("text");
    let longer = config.replace("\"max_position_embeddings\": 256", "\"max_position_embeddings\": 2048");
    assert_ne!(config, longer);
    let source = MemorySource::new()
        .with("config.json", longer.into_bytes())
        .with("model.safetensors", read("model.safetensors"));
    let model = load(&gpu(), Arc::new(source), LoadOptions::default());
    let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
    let ids: Vec<u32> = (0..1800).map(|i| i * 7 % 200).collect();
    session.canceller().cancel();
    let none = pollster::block_on(session.prefill(Input { slot: 0, token_ids: &ids })).expect("prefill");
    assert!(none.is_none());
    assert!((1..1800).contains(&session.tokens(0).len()), "{} tokens", session.tokens(0).len());
    // What is cached counts: the rest gives the logits of the whole.
    let mut fresh = Session::new(&model, SessionOptions::default()).expect("a session");
    let want = fresh.forward(&[Input { slot: 0, token_ids: &ids }], Rows::Last, None).expect("forward");
    let rest = ids[session.tokens(0).len()..].to_vec();
    let got = session.forward(&[Input { slot: 0, token_ids: &rest }], Rows::Last, None).expect("forward");
    let read = |t: &girih_ops::Tensor| pollster::block_on(t.to_f32(model.gpu())).expect("reads");
    goldens::assert_close("logits", &read(&got), &read(&want), 1e-3, 1e-3);
}

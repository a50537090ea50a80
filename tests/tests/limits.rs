//! Small bindings, small caches, lost devices: the same results, or one typed error.

use std::ops::ControlFlow;
use std::sync::Arc;

use girih_kernels::{Access, Buffer, Caps, Gpu, GpuError, Options};
use girih_model::network::layers::LayerCache;
use girih_model::run::memory::{self, Choice};
use girih_model::{
    GenerateOptions, Generated, Input, LoadError, LoadOptions, MemorySource, Model, Rows, RunError, Sampling,
    Session, SessionOptions, WeightPolicy, generate,
};
use girih_ops::{Format, QuantActivation, WeightFormat};
use girih_tests::goldens::{self, assert_close};
use girih_tests::{fable, fable_moe, gpu, load};
use pollster::block_on;

const PROMPT: &str = "Once upon a time, there was a little";

fn greedy(session: &mut Session, max_tokens: usize) -> Result<Generated, RunError> {
    let model = session.model().clone();
    let tokenizer = model.tokenizer().expect("a tokenizer");
    let prompt = tokenizer.encode(PROMPT, true).expect("encodes");
    let options = GenerateOptions {
        max_tokens,
        sampling: Sampling::default(),
        stop: Vec::new(),
        stop_ids: Vec::new(),
        continues: true,
        slot: 0,
    };
    block_on(generate(session, Some(tokenizer), &prompt, &options, |_| ControlFlow::Continue(())))
}

fn logits(model: &Arc<Model>, options: SessionOptions) -> Vec<f32> {
    let mut session = Session::new(model, options).expect("a session");
    let ids: Vec<u32> = (0..40).map(|i| i * 97 % model.config().vocab_size).collect();
    let logits = session.forward(&[Input { slot: 0, token_ids: &ids }], Rows::All, None).expect("forward");
    block_on(logits.to_f32(session.gpu())).expect("read")
}

#[test]
fn matrices_in_several_parts_give_the_logits_and_the_text_of_one() {
    let whole_gpu = gpu();
    let limit = 1 << 20;
    let options = Options { max_binding_bytes: Some(limit), ..Options::default() };
    let split_gpu = block_on(Gpu::new(options)).expect("an adapter");
    for force in [None, Some(WeightFormat::F32), Some(WeightFormat::F16), Some(Format::Q8_0.into())] {
        let weights = WeightPolicy { force, ..WeightPolicy::default() };
        let [whole, split] = [&whole_gpu, &split_gpu]
            .map(|gpu| load(gpu, fable(), LoadOptions { weights, ..LoadOptions::default() }));
        let table = &split.decoder().expect("a decoder").embedding;
        let bytes_per_row = table.bytes() / u64::from(table.n);
        assert!(
            table.parts.len() as u64 >= u64::from(table.n) * bytes_per_row / limit,
            "{}",
            table.parts.len()
        );
        assert!(table.parts.iter().all(|p| p.buffer.size() <= limit));
        assert_eq!(whole.decoder().expect("a decoder").embedding.parts.len(), 1);
        let what = format!("{force:?} in {} parts", table.parts.len());
        let [want, got] = [&whole, &split].map(|model| logits(model, SessionOptions::default()));
        // Another number of rows may be multiplied by another kernel.
        assert_close(&what, &got, &want, 1e-4, 1e-5);
        let [want, got] = [&whole, &split].map(|model| {
            let mut session = Session::new(model, SessionOptions::default()).expect("a session");
            greedy(&mut session, 40).expect("generates").text
        });
        assert_eq!(got, want, "{what}");
        println!("{what}: {want:?}");
    }
}

/// Parts end where an expert does; what goes to experts of another part is left out by each.
#[test]
fn experts_in_several_parts_give_the_logits_and_the_text_of_one() {
    let whole_gpu = gpu();
    let limit = 704 << 10; // what the logits of all tokens take
    let options = Options { max_binding_bytes: Some(limit), ..Options::default() };
    let split_gpu = block_on(Gpu::new(options)).expect("an adapter");
    let int8 = Some(QuantActivation::INT8);
    for (force, activations) in [(None, None), (Some(Format::Q8_0.into()), int8)] {
        let weights = WeightPolicy { force, activations };
        let [whole, split] = [&whole_gpu, &split_gpu]
            .map(|gpu| load(gpu, fable_moe(), LoadOptions { weights, ..LoadOptions::default() }));
        let parts = |model: &Arc<Model>| {
            let blocks = &model.decoder().expect("a decoder").blocks;
            let mixture = blocks[0].feed_forward().mixture().expect("experts");
            mixture.experts().expect("experts").each_ref().map(|matrix| {
                assert!(matrix.parts.iter().all(|part| part.rows % matrix.expert_rows() == 0));
                matrix.parts.len()
            })
        };
        assert_eq!(parts(&whole), [1, 1]);
        let [gate_up, down] = parts(&split);
        assert!(gate_up > 1 && (down > 1 || force.is_some()), "{gate_up}, {down}");
        let what = format!("{force:?} in {gate_up} and {down} parts");
        let [want, got] = [&whole, &split].map(|model| logits(model, SessionOptions::default()));
        assert_close(&what, &got, &want, 1e-4, 1e-5);
        let [want, got] = [&whole, &split].map(|model| {
            let mut session = Session::new(model, SessionOptions::default()).expect("a session");
            greedy(&mut session, 30).expect("generates").text
        });
        assert_eq!(got, want, "{what}");
    }
    // An expert of gate and up has 192 KiB.
    let options = Options { max_binding_bytes: Some(160 << 10), ..Options::default() };
    let small = block_on(Gpu::new(options)).expect("an adapter");
    let options = LoadOptions { context: Some(128), ..LoadOptions::default() };
    let error =
        block_on(Model::load(&small, fable_moe(), options, |_| ())).expect_err("too large").to_string();
    assert!(error.contains("an expert must fit one binding"), "{error}");
}

#[test]
fn what_cannot_be_split_is_refused_with_its_size() {
    let open = |kib: u64| {
        let options = Options { max_binding_bytes: Some(kib << 10), ..Options::default() };
        block_on(Gpu::new(options)).expect("an adapter")
    };
    let refused = |gpu: &Gpu, context| {
        let options = LoadOptions { context, ..LoadOptions::default() };
        block_on(Model::load(gpu, fable(), options, |_| ())).expect_err("too large").to_string()
    };
    // A rotary embedding of 512 positions; 64 rows of the MLP; the keys of a layer.
    let error = refused(&open(64), None);
    assert!(error.contains("max_positions is 512, must be 1 to 256"), "{error}");
    let error = refused(&open(64), Some(256));
    assert!(error.contains("bytes of a row is 1536, must be 1 to 1024"), "{error}");
    let model = load(&open(128), fable(), LoadOptions::default());
    let error = Session::new(&model, SessionOptions::default()).expect_err("256 KiB of keys").to_string();
    assert!(error.contains("a buffer of the device holds 0.1 MB; what fits: --context 256"), "{error}");
    // What fits gives the same text.
    let options = SessionOptions { context: Some(256), ..SessionOptions::default() };
    let whole = load(&gpu(), fable(), LoadOptions::default());
    let [got, want] = [&model, &whole].map(|model| {
        let mut session = Session::new(model, options).expect("a session");
        greedy(&mut session, 8).expect("generates").text
    });
    assert_eq!(got, want);
}

/// An f16 cache rounds keys and values by at most 2^-11 of their size. Rounding errors of different keys, channels
/// and layers are independent and average out in the sums that make a logit: what is left is below 2^-11 of the
/// spread of the logits.
#[test]
fn an_f16_cache_changes_logits_by_its_rounding_and_no_token() {
    let model = load(&gpu(), fable(), LoadOptions::default());
    let f16 = SessionOptions { f16_cache: true, ..SessionOptions::default() };
    let want = logits(&model, SessionOptions::default());
    let got = logits(&model, f16);
    let (min, max) = want.iter().fold((f32::MAX, f32::MIN), |(a, b), &v| (a.min(v), b.max(v)));
    let tolerance = 2.0_f64.powi(-11) * f64::from(max - min);
    let worst = got.iter().zip(&want).fold(0.0_f32, |worst, (g, w)| worst.max((g - w).abs()));
    println!("f16 cache: logits from {min} to {max} differ by {worst} at most (tolerance {tolerance:.3})");
    assert_ne!(got, want, "the cache is f16");
    assert_close("f16 cache", &got, &want, tolerance, 0.0);
    let [want, got] = [SessionOptions::default(), f16].map(|options| {
        let mut session = Session::new(&model, options).expect("a session");
        let text = greedy(&mut session, 30).expect("generates");
        (text.token_ids, session.cache().bytes())
    });
    assert_eq!(got.0, want.0);
    assert_eq!(2 * got.1, want.1);
}

fn is_lost(error: &RunError) -> bool {
    matches!(error.device(), Some(GpuError::Lost(message)) if message.contains("Destroyed"))
}

#[test]
fn a_lost_device_is_an_error_and_the_next_one_works() {
    let mut want = None;
    // Lost after the first text, before anything ran, and before the model is loaded.
    for stage in 0..3 {
        let gpu = gpu();
        if stage == 2 {
            gpu.device().destroy();
            let error =
                block_on(Model::load(&gpu, fable(), LoadOptions::default(), |_| ())).expect_err("lost");
            assert!(matches!(error.device(), Some(GpuError::Lost(_))), "{error:?}");
            continue;
        }
        let model = load(&gpu, fable(), LoadOptions::default());
        let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
        if stage == 0 {
            want = Some(greedy(&mut session, 12).expect("generates").text);
        }
        gpu.device().destroy();
        for _ in 0..2 {
            let error = greedy(&mut session, 12).expect_err("lost");
            assert!(is_lost(&error), "stage {stage}: {error:?}");
        }
        let input = [Input { slot: 0, token_ids: &[1, 2, 3, 4, 5, 6, 7] }];
        let result = session.forward(&input, Rows::All, None);
        let result = result.and_then(|logits| Ok(block_on(logits.to_f32(&gpu))?));
        assert!(is_lost(&result.expect_err("lost")));
        let error = block_on(model.embed(&[vec![1, 2, 3]])).expect_err("lost");
        assert!(is_lost(&error), "stage {stage}: {error:?}");
        assert!(matches!(gpu.check(), Err(GpuError::Lost(_))));
    }
    // Lost in the middle of a text, with the tokens chosen on the device and on the host.
    for temperature in [0.0, 0.7] {
        let gpu = gpu();
        let model = load(&gpu, fable(), LoadOptions::default());
        let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
        let options = GenerateOptions {
            max_tokens: 100,
            sampling: Sampling { temperature, ..Sampling::default() },
            stop: Vec::new(),
            stop_ids: Vec::new(),
            continues: true,
            slot: 0,
        };
        let mut pieces = 0;
        let result = block_on(generate(&mut session, model.tokenizer().ok(), &[5, 6, 7], &options, |_| {
            pieces += 1;
            if pieces == 5 {
                gpu.device().destroy();
            }
            ControlFlow::Continue(())
        }));
        let error = result.expect_err("lost");
        assert!(is_lost(&error), "temperature {temperature}: {error:?}");
    }
    let model = load(&gpu(), fable(), LoadOptions::default());
    let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
    assert_eq!(Some(greedy(&mut session, 12).expect("generates").text), want);
}

/// Latents have their values in the same memory, states are f32 whatever the cache is, and the longest of both must fit.
#[test]
fn memory_of_latents_and_states_is_told_before_it_is_taken() {
    let gpu = gpu();
    for (name, context) in [("deepseek_v3", 64), ("minimax", 8), ("minimax", 200)] {
        let folder = goldens::dir().join("models").join(name);
        let model = load(&gpu, girih_tests::files::source(&folder), LoadOptions::default());
        for (f16_cache, slots) in [(false, 1), (true, 3)] {
            let options = SessionOptions { context: Some(context), slots, f16_cache };
            let session = Session::new(&model, options).expect("a session");
            let choice = Choice::new(None, model.context(), Some(options));
            let told = memory::demand(model.config(), model.weight_bytes(), &choice);
            assert_eq!(told.cache, session.cache().bytes(), "{name}, f16 {f16_cache}");
            let layers = (0..model.config().num_hidden_layers as usize).map(|i| session.cache().layer(i));
            let kept = layers.map(|layer| match layer {
                LayerCache::Keys(view) => view.k.size(),
                LayerCache::States(states) => states.buffer().size(),
            });
            assert_eq!(Some(told.layer), kept.max(), "{name} of {context}, f16 {f16_cache}");
        }
    }
}

/// What is said of memory before loading is what is taken: weights and cache exactly, intermediate results about.
#[test]
fn memory_is_told_before_it_is_taken() {
    let gpu = gpu();
    let model = load(&gpu, fable(), LoadOptions::default());
    let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
    let choice = Choice::new(None, model.context(), Some(SessionOptions::default()));
    let told = memory::demand(model.config(), model.weight_bytes(), &choice);
    assert_eq!(told.cache, session.cache().bytes());
    assert_eq!(told.layer, session.cache().layer(0).keys().expect("keys").k.size());
    // Every buffer that the largest piece of a prompt writes, the cache apart.
    let ids = vec![1; model.context() as usize];
    let input = [Input { slot: 0, token_ids: &ids }];
    let (frame, _) = session.record(&input, Rows::Last, None).expect("records");
    let layers = (0..model.config().num_hidden_layers as usize).map(|i| session.cache().layer(i));
    let cached: Vec<Buffer> = layers
        .map(|layer| layer.keys().expect("keys"))
        .flat_map(|keys| [keys.k.clone(), keys.v.clone()])
        .collect();
    let mut known = cached.clone();
    for dispatch in frame.recording().dispatches() {
        for (binding, buffer) in dispatch.spec.bindings.iter().zip(&dispatch.buffers) {
            let written = binding.access == Access::ReadWrite;
            if written && !known.iter().any(|other| other.same_memory(buffer)) {
                known.push(buffer.clone());
            }
        }
    }
    let taken: u64 = known[cached.len()..].iter().map(Buffer::size).sum();
    println!("{} buffers of {taken} bytes, told {}", known.len() - cached.len(), told.scratch);
    assert!((taken / 2..=taken * 3 / 2).contains(&told.scratch), "told {}, taken {taken}", told.scratch);
}

/// Where a layer of the cache does not fit a binding, no weight is read.
#[test]
fn a_cache_that_cannot_be_is_refused_before_loading() {
    let gpu = gpu();
    let small = gpu.with_caps(Caps { binding_bytes: 200_000, ..gpu.caps().clone() });
    let options = LoadOptions { session: Some(SessionOptions::default()), ..LoadOptions::default() };
    let loaded = Model::load(&small, fable(), options, |_| panic!("a weight was read"));
    let error = block_on(loaded).expect_err("too large");
    assert!(matches!(&error, LoadError::OutOfMemory(_)), "{error}");
    let said = error.to_string();
    for part in ["0.3 MB, a buffer of the device holds 0.2 MB", "--context 256", "--cache f16"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// A checkpoint whose values are beyond f16 in one layer.
fn large_values() -> Arc<MemorySource> {
    let folder = goldens::dir().join("models/gemma");
    let read = |file: &str| std::fs::read(folder.join(file)).expect("a golden");
    let mut weights = read("model.safetensors");
    let (len, rest) = weights.split_at_mut(8);
    let len = u64::from_le_bytes(len.try_into().expect("8 bytes")) as usize;
    let (header, data) = rest.split_at_mut(len);
    let header: serde_json::Value = serde_json::from_slice(header).expect("a header");
    let range =
        header["model.layers.1.self_attn.v_proj.weight"]["data_offsets"].as_array().expect("a tensor");
    let [begin, end] = [0, 1].map(|i| range[i].as_u64().expect("an offset") as usize);
    for bytes in data[begin..end].chunks_exact_mut(4) {
        let value = f32::from_le_bytes(bytes.try_into().expect("an f32"));
        bytes.copy_from_slice(&(1e6 * value).to_le_bytes());
    }
    Arc::new(MemorySource::new().with("config.json", read("config.json")).with("model.safetensors", weights))
}

#[test]
fn keys_and_values_beyond_an_f16_cache_are_told() {
    let model = load(&gpu(), large_values(), LoadOptions::default());
    for f16_cache in [false, true] {
        let options = SessionOptions { f16_cache, ..SessionOptions::default() };
        let mut session = Session::new(&model, options).expect("a session");
        for temperature in [0.0, 0.7] {
            let options = GenerateOptions {
                max_tokens: 4,
                sampling: Sampling { temperature, ..Sampling::default() },
                stop: Vec::new(),
                stop_ids: Vec::new(),
                continues: true,
                slot: 0,
            };
            let on_text = |_: &str| ControlFlow::Continue(());
            let made = block_on(generate(&mut session, None, &[5, 17, 40, 9], &options, on_text));
            match made {
                Ok(made) => assert!(!f16_cache && made.token_ids.len() == 4, "{temperature}: {made:?}"),
                Err(error) => {
                    assert!(f16_cache && error.to_string().contains("beyond f16"), "{temperature}: {error}");
                }
            }
            session.truncate(0, 0);
        }
    }
}

//! What would run on devices that are not here: everything is recorded with their capabilities, nothing is run.
//! The recorder refuses what exceeds a limit; the texts of all selected shaders are validated for the device.

use std::collections::{BTreeMap, HashSet};

use girih_kernels::{Caps, Choice, Command, Gpu, Tier};
use girih_model::checkpoint::synthetic::{PRESETS, Preset};
use girih_model::{Input, LoadOptions, Model, Rows, Session, SessionOptions, Tail};
use girih_ops::{
    Act, Attention, Batch, Chunk, DType, Frame, GluAct, KvSize, KvView, Linear, Matrix, Norm, OpError,
    QkNorm, RopeAppend, RopeFreqs, RopeStyle, RopeTable, Tensor, WeightType,
};
use girih_tests::checkpoints::odd;
use girih_tests::devices::recorded;
use girih_tests::{fable, load, shaders};
use pollster::block_on;

/// The recorded devices at each tier that they support, on the memory of the device that is here.
fn devices(gpu: &Gpu) -> Vec<Gpu> {
    let here = gpu.caps();
    recorded()
        .into_iter()
        .flat_map(|caps| {
            let tiers = Tier::ALL.into_iter().filter(|&tier| caps.supports(tier)).collect::<Vec<_>>();
            assert!(tiers.contains(&caps.best_tier()), "{}", caps.adapter.name);
            tiers.into_iter().map(move |tier| caps.clone().at_tier(tier))
        })
        .map(|caps| gpu.with_caps(Caps { buffer_bytes: caps.buffer_bytes.min(here.buffer_bytes), ..caps }))
        .collect()
}

/// Validated shaders, and what was wrong.
#[derive(Default)]
struct Report {
    seen: HashSet<(&'static str, Choice, u64)>,
    dispatches: usize,
    failures: Vec<String>,
    variants: BTreeMap<String, usize>,
}

impl Report {
    fn look(&mut self, gpu: &Gpu, what: &str, commands: &[Command]) {
        let caps = gpu.caps();
        let place = || format!("{} {} {what}", caps.adapter.name, caps.tier);
        if commands.is_empty() {
            self.failures.push(format!("{}: nothing was recorded", place()));
        }
        for command in commands {
            let Command::Dispatch(d) = command else { continue };
            self.dispatches += 1;
            *self.variants.entry(d.label()).or_default() += 1;
            let allowed = shaders::capabilities(caps);
            if self.seen.insert((d.spec.name, d.choice.clone(), allowed.bits()))
                && let Err(error) = shaders::check(d.spec, &d.choice, allowed)
            {
                self.failures.push(format!("{}: {} [{}]: {error}", place(), d.label(), d.choice.selection));
            }
        }
    }

    fn failed(&mut self, gpu: &Gpu, what: &str, error: impl std::fmt::Display) {
        let caps = gpu.caps();
        self.failures.push(format!("{} {} {what}: {error}", caps.adapter.name, caps.tier));
    }

    fn finish(self, what: &str) {
        println!("{what}: {} dispatches, {} shaders", self.dispatches, self.seen.len());
        for (variant, count) in &self.variants {
            println!("  {variant}: {count}");
        }
        assert!(self.failures.is_empty(), "{} failures:\n{}", self.failures.len(), self.failures.join("\n"));
    }
}

/// Prefills of all regimes, a ragged batch, the decode step with each tail.
fn record_decoder(report: &mut Report, model: &std::sync::Arc<Model>, name: &str, f16_cache: bool) {
    let gpu = model.gpu();
    let options = SessionOptions { slots: 3, f16_cache, ..SessionOptions::default() };
    let mut session = match Session::new(model, options) {
        Ok(session) => session,
        Err(error) => return report.failed(gpu, name, error),
    };
    let context = model.context() as usize;
    let ids: Vec<u32> = (0..context as u32).map(|i| i * 7 % model.config().vocab_size).collect();
    for len in [1, 3, 5, 17, 40, context] {
        session.truncate(0, 0);
        let what = format!("{name} prefill of {len}");
        match session.record(&[Input { slot: 0, token_ids: &ids[..len] }], Rows::Last, None) {
            Ok((frame, _)) => report.look(gpu, &what, frame.recording().commands()),
            Err(error) => report.failed(gpu, &what, error),
        }
    }
    session.truncate(0, 4);
    let inputs: Vec<Input<'_>> = [(2, 5), (0, 17), (1, 1)]
        .into_iter()
        .map(|(slot, len)| Input { slot, token_ids: &ids[..len] })
        .collect();
    match session.record(&inputs, Rows::All, None) {
        Ok((frame, _)) => report.look(gpu, &format!("{name} batch"), frame.recording().commands()),
        Err(error) => report.failed(gpu, &format!("{name} batch"), error),
    }
    for tail in [Tail::Greedy, Tail::Candidates, Tail::Logits] {
        let what = format!("{name} step {tail:?}");
        match session.record_step(tail) {
            Ok(frame) => report.look(gpu, &what, frame.recording().commands()),
            Err(error) => report.failed(gpu, &what, error),
        }
    }
}

fn record_encoder(report: &mut Report, model: &Model, name: &str) -> Result<(), OpError> {
    let gpu = model.gpu();
    let ids: Vec<u32> = (0..40).collect();
    let chunks: Vec<Chunk<'_>> =
        (0..).zip([1, 17, 40]).map(|(slot, len)| Chunk { slot, start: 0, token_ids: &ids[..len] }).collect();
    for chunks in [&chunks[..1], &chunks[1..2], &chunks] {
        let batch = Batch::upload(gpu, chunks)?;
        let segments = Tensor::from_u32(gpu, &vec![0; batch.num_tokens() as usize], &[batch.num_tokens()])?;
        let mut frame = Frame::new(gpu);
        model.encoder().expect("an encoder").forward(&mut frame, &batch, &segments, None)?;
        report.look(gpu, name, frame.recording().commands());
    }
    Ok(())
}

/// Frees what was dropped and what the queue still holds for uploads.
fn free(gpu: &Gpu) {
    gpu.queue().submit([]);
    gpu.wait_idle();
}

#[test]
fn the_story_model_fits_every_device() {
    let gpu = girih_tests::gpu();
    let mut report = Report::default();
    for device in devices(&gpu) {
        for f16_cache in [false, true] {
            let model = load(&device, fable(), LoadOptions::default());
            record_decoder(&mut report, &model, "fable-5m", f16_cache);
        }
        free(&gpu);
    }
    gpu.check().expect("no error of the device");
    report.finish("fable-5m");
}

#[test]
fn odd_checkpoints_fit_every_device() {
    let gpu = girih_tests::gpu();
    let mut report = Report::default();
    let checkpoints: Vec<_> = odd().into_iter().map(|c| (c.source(), c)).collect();
    for device in devices(&gpu) {
        for (i, (source, checkpoint)) in checkpoints.iter().enumerate() {
            let model = load(&device, source.clone(), LoadOptions::default());
            if model.encoder().is_none() {
                record_decoder(&mut report, &model, checkpoint.name, i % 2 == 1);
            } else if let Err(error) = record_encoder(&mut report, &model, checkpoint.name) {
                report.failed(&device, checkpoint.name, error);
            }
        }
        free(&gpu);
    }
    gpu.check().expect("no error of the device");
    report.finish("odd checkpoints");
}

/// Any variant may fail its self-test somewhere: then another one takes its place, or, for the last ones, an error
/// says so. It is never used all the same.
#[test]
fn a_blocked_variant_is_replaced_or_refused() {
    const LAST: [&str; 4] = ["portable", "tiles", "tiled", "scalar"];
    let gpu = girih_tests::gpu();
    let sources = [fable(), odd().swap_remove(5).source(), odd().swap_remove(10).source()];
    let mut report = Report::default();
    // Variants that are selected, and what failed.
    let mut all = |caps: Caps| {
        let device = gpu.with_caps(caps);
        for source in &sources {
            let model = load(&device, source.clone(), LoadOptions::default());
            record_decoder(&mut report, &model, "blocked", false);
        }
        (std::mem::take(&mut report.variants), std::mem::take(&mut report.failures))
    };
    for name in ["WebGPU default limits", "Apple M1", "llvmpipe (256 bits)"] {
        let caps = recorded().into_iter().find(|caps| caps.adapter.name == name).expect("recorded");
        let (selected, failures) = all(caps.clone());
        assert!(failures.is_empty(), "{failures:?}");
        let mut refused = Vec::new();
        for label in selected.into_keys() {
            let (variants, failures) = all(Caps { blocked: [label.clone()].into(), ..caps.clone() });
            assert!(!variants.contains_key(&label), "{name}: {label} is blocked");
            if failures.is_empty() {
                continue;
            }
            let want = format!("{label} needs a passed self-test");
            assert!(failures.iter().all(|failure| failure.contains(&want)), "{failures:?}");
            let variant = label.split('/').nth(1).expect("a variant");
            assert!(LAST.contains(&variant), "{name}: {label} has no replacement");
            refused.push(label);
        }
        println!("{name}: no replacement for {refused:?}");
        free(&gpu);
    }
    gpu.check().expect("no error of the device");
}

/// Embedding, one layer and the head of a Llama, on matrices that are never written.
struct Llama {
    preset: Preset,
    embedding: Matrix,
    qkv: Matrix,
    o: Matrix,
    gate_up: Matrix,
    down: Matrix,
    norm: Tensor,
    rope: RopeTable,
    cache: KvView,
}

const LLAMA_CONTEXT: u32 = 8192;

impl Llama {
    fn new(gpu: &Gpu, preset: Preset, weight_type: WeightType, f16_cache: bool) -> Result<Self, OpError> {
        let (c, d) = (preset.hidden_size, preset.head_dim);
        let (q, kv) = (preset.num_q_heads * d, preset.num_kv_heads * d);
        let matrix = |n, k| Matrix::alloc(gpu, weight_type, n, k);
        let freqs = RopeFreqs { inv_freq: &vec![1.0; d as usize / 2], attention_factor: 1.0 };
        Ok(Self {
            preset,
            embedding: matrix(preset.vocab_size, c)?,
            qkv: matrix(q + 2 * kv, c)?,
            o: matrix(c, q)?,
            gate_up: matrix(2 * preset.intermediate_size, c)?,
            down: matrix(c, preset.intermediate_size)?,
            norm: Tensor::from_buffer(gpu.alloc(4 * u64::from(c))?, &[c], DType::F32)?,
            rope: RopeTable::new(gpu, d, &freqs, None, LLAMA_CONTEXT)?,
            cache: KvView::alloc(
                gpu,
                KvSize {
                    slots: 1,
                    num_kv_heads: preset.num_kv_heads,
                    capacity: LLAMA_CONTEXT,
                    head_dim: d,
                    f16: f16_cache,
                },
            )?,
        })
    }

    fn record(&self, gpu: &Gpu, len: u32, kv_len: u32, greedy: bool) -> Result<Frame, OpError> {
        let ids = vec![0; len as usize];
        let chunk = Chunk { slot: 0, start: kv_len - len, token_ids: &ids };
        let batch = Batch::upload(gpu, &[chunk])?;
        let mut frame = Frame::new(gpu);
        let f = &mut frame;
        let normed = Linear { norm: Some(Norm::Rms { weight: &self.norm, eps: 1e-5 }), ..Linear::default() };
        let num_q_heads = self.preset.num_q_heads;
        let x = girih_ops::embedding(f, &batch.token_ids, &self.embedding, 1.0)?;
        let qkv = girih_ops::linear(f, &x, &self.qkv, &normed)?;
        let rope = Some((&self.rope, RopeStyle::Half));
        let append = RopeAppend { num_q_heads, norm: QkNorm::None, clip: None, rope };
        let q = girih_ops::rope_append(f, &qkv, &self.cache, &batch, &append)?;
        let opts =
            Attention { num_q_heads, scale: 0.125, causal: true, window: None, softcap: None, sinks: None };
        let h = girih_ops::attention(f, &q, &self.cache, &batch, &opts)?;
        let x = girih_ops::linear(f, &h, &self.o, &Linear { residual: Some(&x), ..Linear::default() })?;
        let glu = Linear { act: Act::Glu(GluAct::Silu), ..normed };
        let h = girih_ops::linear(f, &x, &self.gate_up, &glu)?;
        let x = girih_ops::linear(f, &h, &self.down, &Linear { residual: Some(&x), ..Linear::default() })?;
        let last = Tensor::from_u32(gpu, &[len - 1], &[1])?;
        let x = if len == 1 { x } else { girih_ops::gather_rows(f, &x, &last)? };
        let logits = girih_ops::linear(f, &x, &self.embedding, &normed)?;
        if greedy {
            let out = Tensor::from_u32(gpu, &[0; 9], &[1, 9])?;
            girih_ops::greedy_step(f, &logits, &batch, &out)?;
        } else {
            girih_ops::top_k(f, &logits, 64)?;
        }
        Ok(frame)
    }
}

#[test]
fn a_layer_of_llama_1b_fits_every_device() {
    let gpu = girih_tests::gpu();
    let preset = *PRESETS.iter().find(|p| p.name == "llama-3.2-1b").expect("a preset");
    let mut report = Report::default();
    for device in devices(&gpu) {
        for (weight_type, f16_cache) in
            [(WeightType::F16, false), (WeightType::Bf16, true), (WeightType::F32, false)]
        {
            let what = format!("llama-3.2-1b {weight_type:?}");
            let llama = match Llama::new(&device, preset, weight_type, f16_cache) {
                Ok(llama) => llama,
                Err(error) => {
                    report.failed(&device, &what, error);
                    continue;
                }
            };
            for (len, kv_len) in
                [(1, 1), (1, 300), (1, LLAMA_CONTEXT), (4, 4), (5, 5), (40, 300), (512, LLAMA_CONTEXT)]
            {
                match llama.record(&device, len, kv_len, len == 1 && kv_len == 300) {
                    Ok(frame) => report.look(&device, &what, frame.recording().commands()),
                    Err(error) => report.failed(&device, &format!("{what} {len} of {kv_len}"), error),
                }
            }
            drop(llama);
            free(&gpu);
        }
    }
    gpu.check().expect("no error of the device");
    report.finish("llama-3.2-1b");
}

#[test]
fn pipelines_are_not_compiled_to_look_at_a_recording() {
    let gpu = girih_tests::gpu();
    let model = load(&gpu, fable(), LoadOptions::default());
    let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
    let input = [Input { slot: 0, token_ids: &[1, 2, 3] }];
    session.record(&input, Rows::Last, None).expect("records");
    session.record_step(Tail::Greedy).expect("records");
    assert_eq!(gpu.counters().pipelines, 0);
    assert_eq!(session.tokens(0), [1, 2, 3]);
    // The twins give what the device gives.
    let (mut frame, logits) =
        session.record(&[Input { slot: 0, token_ids: &[4] }], Rows::Last, None).expect("records");
    block_on(frame.run_twins(|_| true)).expect("twins");
    assert!(block_on(logits.to_f32(&gpu)).expect("read").iter().all(|v| v.is_finite()));
}

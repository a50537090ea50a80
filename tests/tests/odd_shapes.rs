//! Nothing is tuned to shapes that anyone has seen: made-up checkpoints of every model type with odd shapes, on the
//! device and with the CPU twins of all kernels.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use girih_kernels::testing::hash;
use girih_kernels::{Gpu, Tier};
use girih_model::{Config, Input, LoadOptions, Model, Rows, Session, SessionOptions, Tail};
use girih_ops::{Batch, Chunk, Frame, Tensor};
use girih_tests::checkpoints::{Checkpoint, odd};
use girih_tests::load;
use pollster::block_on;

const CONTEXT: u32 = 64;
const STEPS: usize = 6;

fn read(gpu: &Gpu, tensor: &Tensor) -> Vec<f32> {
    block_on(tensor.to_f32(gpu)).expect("read")
}

fn tokens(config: &Config, len: usize, seed: u32) -> Vec<u32> {
    (0..len as u32).map(|i| hash(i + 1000 * seed) % config.vocab_size).collect()
}

/// Largest difference, as a share of the largest value.
fn compare(what: &str, got: &[f32], want: &[f32], tolerance: f32) -> f32 {
    assert_eq!(got.len(), want.len(), "{what}: number of elements");
    let largest = want.iter().fold(0.0, |max: f32, v| max.max(v.abs()));
    assert!(largest.is_finite() && largest > 0.0, "{what}: the twins give {largest}");
    let mut worst = (0, 0.0);
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let difference = (g - w).abs() / largest;
        if difference > worst.1 || difference.is_nan() {
            worst = (i, difference);
        }
    }
    let (i, difference) = worst;
    assert!(
        difference <= tolerance,
        "{what}: [{i}] is {}, want {} (largest {largest}, tolerance {tolerance:.0e} of it)",
        got[i],
        want[i]
    );
    difference
}

/// The same calls on the device and on the twins; each side has its own cache.
struct Pair {
    name: &'static str,
    device: Session,
    twins: Session,
    tolerance: f32,
    worst: f32,
}

impl Pair {
    fn forward(&mut self, what: &str, inputs: &[Input<'_>], rows: Rows) {
        let gpu = self.device.gpu().clone();
        let got = read(&gpu, &self.device.forward(inputs, rows, None).expect("forward"));
        let (mut frame, logits) = self.twins.record(inputs, rows, None).expect("record");
        block_on(frame.run_twins(|_| true)).expect("twins");
        let want = read(&gpu, &logits);
        let what = format!("{} {what}", self.name);
        self.worst = self.worst.max(compare(&what, &got, &want, self.tolerance));
    }

    /// Decode steps fed back on the device, then one with all logits.
    fn decode(&mut self, slot: u32, first: u32) {
        let gpu = self.device.gpu().clone();
        for session in [&mut self.device, &mut self.twins] {
            session.seek(Tail::Greedy, slot, first).expect("seek");
        }
        self.device.step(Tail::Greedy, STEPS as u32).expect("step");
        for _ in 0..STEPS {
            let plan = self.twins.decode_plan(Tail::Greedy).expect("plan");
            block_on(gpu.run_twins(plan.plan().commands(), |_| true)).expect("twins");
        }
        let out = |session: &mut Session| {
            let plan = session.decode_plan(Tail::Greedy).expect("plan");
            let words = block_on(plan.outputs()[0].to_u32(&gpu)).expect("read");
            assert_eq!(words[0] as usize, STEPS, "{}: steps counted", self.name);
            words[1..=STEPS].to_vec()
        };
        let (got, want) = (out(&mut self.device), out(&mut self.twins));
        assert_eq!(got, want, "{}: greedy tokens", self.name);
        for session in [&mut self.device, &mut self.twins] {
            let last = want[STEPS - 1];
            session.note(slot, first);
            want[..STEPS - 1].iter().for_each(|&token| session.note(slot, token));
            session.seek(Tail::Logits, slot, last).expect("seek");
        }
        self.device.step(Tail::Logits, 1).expect("step");
        let plan = self.twins.decode_plan(Tail::Logits).expect("plan");
        block_on(gpu.run_twins(plan.plan().commands(), |_| true)).expect("twins");
        let [got, want] = [&mut self.device, &mut self.twins].map(|session| {
            let plan = session.decode_plan(Tail::Logits).expect("plan");
            read(&gpu, &plan.outputs()[0])
        });
        let what = format!("{} logits after the steps", self.name);
        self.worst = self.worst.max(compare(&what, &got, &want, self.tolerance));
    }
}

fn decoder(gpu: &Gpu, checkpoint: &Checkpoint, f16_cache: bool) -> f32 {
    let model = load(gpu, checkpoint.source(), LoadOptions::default());
    assert!(model.unused_tensors().is_empty(), "{}: {:?}", checkpoint.name, model.unused_tensors());
    let options = SessionOptions { context: Some(CONTEXT), slots: 3, f16_cache };
    let session = || Session::new(&model, options).expect("a session");
    // A cached value may be rounded to the next f16 on one side.
    let tolerance = if f16_cache { 2e-3 } else { 1e-4 };
    let mut pair = Pair { name: checkpoint.name, device: session(), twins: session(), tolerance, worst: 0.0 };
    let config = model.config();
    // Products of three rows are compiled for themselves: with one checkpoint in four.
    let lengths: &[usize] = if f16_cache { &[1, 3, 5, 17, 40] } else { &[1, 5, 17, 40] };
    for &len in lengths {
        // The last one continues the one before.
        if len != 40 {
            pair.device.truncate(0, 0);
            pair.twins.truncate(0, 0);
        }
        let ids = tokens(config, len, len as u32);
        pair.forward(&format!("prefill of {len}"), &[Input { slot: 0, token_ids: &ids }], Rows::All);
    }
    pair.device.truncate(0, 4);
    pair.twins.truncate(0, 4);
    let ids: Vec<Vec<u32>> = (50..).zip([5, 17, 1]).map(|(seed, len)| tokens(config, len, seed)).collect();
    let inputs: Vec<Input<'_>> =
        [2, 0, 1].into_iter().zip(&ids).map(|(slot, token_ids)| Input { slot, token_ids }).collect();
    pair.forward("ragged batch", &inputs, Rows::Last);
    pair.decode(0, 7);
    pair.worst
}

fn encoder(gpu: &Gpu, checkpoint: &Checkpoint) -> f32 {
    let model = load(gpu, checkpoint.source(), LoadOptions::default());
    assert!(model.unused_tensors().is_empty(), "{}: {:?}", checkpoint.name, model.unused_tensors());
    let mut worst = 0.0_f32;
    for lengths in [&[1][..], &[17], &[5, 40, 1]] {
        let sequences: Vec<Vec<u32>> =
            (60..).zip(lengths).map(|(seed, &len)| tokens(model.config(), len, seed)).collect();
        let segments: Vec<Vec<u32>> = sequences.iter().map(|s| s.iter().map(|id| id % 2).collect()).collect();
        let got = block_on(model.states(&sequences, Some(&segments), None)).expect("states").concat();
        let want = encoder_twins(&model, &sequences, &segments);
        let what = format!("{} of {lengths:?}", checkpoint.name);
        worst = worst.max(compare(&what, &got, &want, 1e-4));
    }
    worst
}

fn encoder_twins(model: &Model, sequences: &[Vec<u32>], segments: &[Vec<u32>]) -> Vec<f32> {
    let gpu = model.gpu();
    let chunks: Vec<Chunk<'_>> =
        (0..).zip(sequences).map(|(slot, token_ids)| Chunk { slot, start: 0, token_ids }).collect();
    let batch = Batch::upload(gpu, &chunks).expect("a batch");
    let segments = Tensor::from_u32(gpu, &segments.concat(), &[batch.num_tokens()]).expect("segments");
    let mut frame = Frame::new(gpu);
    let encoder = model.encoder().expect("an encoder");
    let states = encoder.forward(&mut frame, &batch, &segments, None).expect("records");
    block_on(frame.run_twins(|_| true)).expect("twins");
    read(gpu, &states)
}

/// What CPUs would take twenty minutes to compile at t0, where each shape of attention is another kernel: one of the mixtures of
/// experts and every third of the others are compared there, all of them at the best tier. `kernel_twins` and the goldens of
/// `models` cover t0.
fn is_left_out(gpu: &Gpu, at: usize, checkpoint: &Checkpoint) -> bool {
    let text = checkpoint.config().to_string();
    let is_mixture = Config::parse(text.as_bytes()).is_ok_and(|config| config.experts.is_some());
    let is_left_out = if is_mixture { checkpoint.name != "mixtral" } else { !at.is_multiple_of(3) };
    gpu.caps().tier == Tier::Portable && is_left_out
}

/// Every `of`-th checkpoint from the `part`-th on: the parts run side by side, on one device.
fn part(part: usize, of: usize) {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    let gpu = GPU.get_or_init(girih_tests::gpu);
    let only = std::env::var("GIRIH_MODEL").ok();
    for (i, checkpoint) in odd().iter().enumerate().skip(part).step_by(of) {
        let is_other = only.as_deref().is_some_and(|name| name != checkpoint.name);
        if is_other || only.is_none() && is_left_out(gpu, i, checkpoint) {
            continue;
        }
        let start = std::time::Instant::now();
        let f16_cache = i % 4 == 3;
        let worst = match checkpoint.model_type() {
            "bert" => encoder(gpu, checkpoint),
            _ => decoder(gpu, checkpoint, f16_cache),
        };
        let (cache, seconds) = (if f16_cache { ", f16 cache" } else { "" }, start.elapsed().as_secs_f64());
        println!("{}{cache}: within {worst:.1e}, {seconds:.1} s", checkpoint.name);
    }
    gpu.check().expect("no error of the device");
}

#[test]
fn odd_checkpoints_agree_with_the_twins_1_of_2() {
    part(0, 2);
}

#[test]
fn odd_checkpoints_agree_with_the_twins_2_of_2() {
    part(1, 2);
}

/// Shapes that change with `GIRIH_SEED`; for looking for mistakes, too slow for every run.
#[test]
#[ignore = "compiles new pipelines for every seed"]
fn random_checkpoints_agree_with_the_twins() {
    let gpu = girih_tests::gpu();
    let number =
        |name: &str, default| std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(default);
    let first: u32 = number("GIRIH_SEED", 0);
    for seed in first..first + number("GIRIH_COUNT", 10) {
        let checkpoint = Checkpoint::random(seed);
        println!("{} {}", checkpoint.name, checkpoint.config());
        let start = std::time::Instant::now();
        let worst = decoder(&gpu, &checkpoint, seed % 3 == 1);
        println!("  within {worst:.1e}, {:.1} s", start.elapsed().as_secs_f64());
    }
    gpu.check().expect("no error of the device");
}

#[test]
fn every_model_type_has_an_odd_checkpoint() {
    let checkpoints = odd();
    let seen: BTreeSet<&str> = checkpoints.iter().map(Checkpoint::model_type).collect();
    assert_eq!(seen, girih_model::network::arch::MODEL_TYPES.iter().copied().collect());
}

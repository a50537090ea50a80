//! `girih bench`: speed of models and kernels.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Instant;

use clap::{Args, Subcommand};
use girih_kernels::explain::{Explained, explain};
use girih_kernels::{Gpu, wgpu};
use girih_model::checkpoint::synthetic::ExpertChoice;
use girih_model::{Input, Rows, Session, Tail};
use serde_json::{Value, json};

use crate::commands::{bench_expert_memory, bench_experts};
use crate::error::Failure;
use crate::models::{ModelArgs, SessionArgs};
use crate::{Global, device};

/// Arguments.
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Prompt processing and token generation of a whole model, as llama-bench prints them
    Model(BenchModel),
    /// Every kernel at real shapes, beside what the device can do at best
    Kernels(crate::commands::bench_kernels::BenchKernels),
    /// What each scheme of quantisation costs a model
    Quality(crate::commands::bench_quality::BenchQuality),
}

#[derive(Debug, Args)]
struct BenchModel {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    session: SessionArgs,
    /// Random weights of a known shape instead of a checkpoint: llama-79m, llama-300mb, llama-3.2-1b, llama-3.1-8b, qwen3-moe-13m,
    /// qwen3-30b-a3b-layer, gpt-oss-20b-layer, olmoe-1b-7b
    #[arg(long, value_name = "PRESET", conflicts_with = "model")]
    synthetic: Option<String>,
    /// How the tokens of a synthetic mixture are spread over its experts: balanced, skewed or one-hot
    #[arg(long, value_name = "CHOICE", requires = "synthetic")]
    routing: Option<ExpertChoice>,
    /// Only the first N layers of a synthetic model
    #[arg(long, value_name = "N", requires = "synthetic")]
    layers: Option<u32>,
    /// Prompt length
    #[arg(short = 'p', long, default_value_t = 512, value_name = "N")]
    prompt: u32,
    /// Generated tokens
    #[arg(short = 'n', long, default_value_t = 128, value_name = "N")]
    generate: u32,
    /// Repetitions
    #[arg(short = 'r', long, default_value_t = 5, value_name = "N")]
    repetitions: usize,
}

impl Bench {
    /// Runs the command.
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let gpu = device::open(global).await?;
        match self.what {
            What::Model(bench) => bench.run(&gpu, global).await,
            What::Kernels(bench) => bench.run(&gpu, global).await,
            What::Quality(bench) => bench.run(&gpu, global).await,
        }
    }
}

/// Tokens per second of several runs.
struct Rate {
    mean: f64,
    deviation: f64,
}

fn rate(tokens: u32, seconds: &[f64]) -> Rate {
    let rates: Vec<f64> = seconds.iter().map(|s| f64::from(tokens) / s).collect();
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    let variance = rates.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (rates.len().max(2) - 1) as f64;
    Rate { mean, deviation: variance.sqrt() }
}

impl BenchModel {
    async fn run(self, gpu: &Gpu, global: &Global) -> Result<(), Failure> {
        let (model, name) = match &self.synthetic {
            Some(preset) => {
                let source = bench_experts::synthetic(preset, self.routing, self.layers)?;
                (
                    self.model.load_synthetic(gpu, source, preset, self.session.options(), global).await?,
                    preset.clone(),
                )
            }
            None => (self.model.load(gpu, Some(self.session.options()), global).await?, self.model.name()),
        };
        let context = model.context();
        if self.prompt > context || self.generate > context || self.repetitions == 0 {
            return Err(Failure::Argument(format!(
                "a prompt of {}, {} tokens and {} repetitions do not fit a context of {context} (see --context) \
                 and at least one repetition",
                self.prompt, self.generate, self.repetitions
            )));
        }
        let mut session = Session::new(&model, self.session.options())?;
        let vocab_size = model.config().vocab_size;
        let ids: Vec<u32> = (0..self.prompt).map(|i| girih_kernels::testing::hash(i) % vocab_size).collect();
        let experts = model.experts().cloned();
        let reset = || experts.iter().for_each(|experts| experts.reset_counts());
        let mut prefill = Vec::new();
        for run in 0..=self.repetitions {
            session.truncate(0, 0);
            if run == 1 {
                reset();
            }
            let start = Instant::now();
            session.forward(&[Input { slot: 0, token_ids: &ids }], Rows::Last, None)?;
            gpu.wait_idle();
            if run > 0 {
                prefill.push(start.elapsed().as_secs_f64()); // the first run compiles
            }
        }
        let prefill_counts = experts.as_ref().map(|experts| experts.counts());
        let mut decode = Vec::new();
        let mut after_warm_up = None;
        for run in 0..=self.repetitions {
            session.truncate(0, 0);
            session.seek(Tail::Greedy, 0, 1 % vocab_size)?;
            gpu.wait_idle();
            let start = Instant::now();
            let mut left = self.generate;
            while left > 0 {
                let steps = left.min(8);
                session.step(Tail::Greedy, steps)?;
                left -= steps;
            }
            gpu.wait_idle();
            if run == 0 {
                after_warm_up = Some(gpu.counters());
                reset();
                continue;
            }
            decode.push(start.elapsed().as_secs_f64());
        }
        gpu.check()?;
        let made = after_warm_up.map_or(0, |before| {
            let now = gpu.counters();
            (now.pipelines - before.pipelines)
                + (now.bind_groups - before.bind_groups)
                + (now.buffers - before.buffers)
        });
        let encode_ms = encode_ms(gpu, &mut session)?;
        let (pp, tg) = (rate(self.prompt, &prefill), rate(self.generate, &decode));
        let dispatches = session.decode_plan(Tail::Greedy)?.plan().num_dispatches();
        let layers = model.config().num_hidden_layers;
        let counts = prefill_counts.zip(experts.as_ref().map(|experts| experts.counts()));
        let cache = experts.as_deref().zip(counts).map(|(experts, (prefill, decode))| {
            let tokens = [self.prompt, self.generate].map(|n| u64::from(n) * self.repetitions as u64);
            bench_expert_memory::report(experts, [prefill, decode], tokens)
        });
        let locality = bench_expert_memory::locality(gpu, &mut session, self.generate).await?;
        // A step that reads experts does not run as a whole.
        let kernels = if experts.is_some() { Vec::new() } else { profile(gpu, &mut session).await? };
        let routing = self.synthetic.is_some().then(|| self.routing.unwrap_or_default().name());
        let mixture = bench_experts::report(&model, &session, &ids, routing).await?;
        let mut out = std::io::stdout().lock();
        let size = model.weight_bytes();
        // Of a mixture a step reads the experts of one token.
        let read = mixture["active_bytes_per_token"].as_f64().unwrap_or(size as f64);
        if global.json {
            let report = json!({
                "model": name, "device": device::describe(gpu.caps()), "weight_bytes": size,
                "tests": [
                    { "test": format!("pp{}", self.prompt), "tokens_per_second": pp.mean, "stddev": pp.deviation },
                    { "test": format!("tg{}", self.generate), "tokens_per_second": tg.mean, "stddev": tg.deviation },
                ],
                "dispatches_per_token": dispatches, "layers": layers, "cpu_encode_ms_per_token": encode_ms,
                "made_after_warm_up": made, "decode_weight_gb_per_s": read * tg.mean / 1e9, "kernels": kernels,
                "experts": mixture, "expert_memory": cache, "locality": locality,
            });
            writeln!(out, "{report}")?;
            return Ok(());
        }
        writeln!(out, "{}\n", device::describe(gpu.caps()))?;
        writeln!(out, "| {:<20} | {:>10} | {:>8} | {:>20} |", "model", "size", "test", "t/s")?;
        writeln!(out, "| {:-<20} | {:->10} | {:->8} | {:->20} |", "", "", "", "")?;
        for (test, r) in [(format!("pp{}", self.prompt), pp), (format!("tg{}", self.generate), tg)] {
            let size = format!("{:.1} MB", size as f64 / 1e6);
            writeln!(
                out,
                "| {name:<20} | {size:>10} | {test:>8} | {:>10.2} ± {:>7.2} |",
                r.mean, r.deviation
            )?;
        }
        writeln!(
            out,
            "\n{dispatches} dispatches per token ({layers} layers), {encode_ms:.3} ms CPU encode per token"
        )?;
        writeln!(out, "{made} pipelines, bind groups and buffers made after the first run")?;
        bench_experts::print(&mut out, &mixture)?;
        bench_expert_memory::print(&mut out, cache.as_ref(), locality.as_ref())?;
        if kernels.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "\none decode step by kernel (no GB/s where a part is moved of what is bound: tables, caches):"
        )?;
        writeln!(
            out,
            "| {:<28} | {:>5} | {:>10} | {:>6} | {:>8} |",
            "kernel", "count", "us", "share", "GB/s"
        )?;
        let total: f64 = kernels.iter().filter_map(|k| k["us"].as_f64()).sum();
        for k in &kernels {
            let us = k["us"].as_f64().unwrap_or(0.0);
            let rate = k["gb_per_s"].as_f64().map_or(String::new(), |rate| format!("{rate:.2}"));
            writeln!(
                out,
                "| {:<28} | {:>5} | {us:>10.1} | {:>5.1}% | {rate:>8} |",
                k["kernel"].as_str().unwrap_or_default(),
                k["count"],
                100.0 * us / total.max(1e-9)
            )?;
        }
        Ok(())
    }
}

/// Milliseconds that the host needs to encode one decode step; the median of 51. Submitting is left out: on CPU
/// drivers it waits for work before it.
fn encode_ms(gpu: &Gpu, session: &mut Session) -> Result<f64, Failure> {
    let plan = session.decode_plan(Tail::Greedy)?.plan();
    let mut times: Vec<f64> = (0..51)
        .map(|_| {
            let start = Instant::now();
            let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            plan.encode(&mut encoder);
            drop(encoder.finish());
            1e3 * start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Of each dispatch of a decode step what it moves, if it is a product of experts: of their weights, those of the experts
/// that are chosen.
fn expert_bytes(gpu: &Gpu, session: &Session) -> Result<Vec<Option<u64>>, Failure> {
    let frame = session.record_step(Tail::Greedy)?;
    let of = |e: Explained| bench_experts::PRODUCTS.contains(&e.kernel).then_some(e.cost.bytes);
    Ok(frame.recording().dispatches().map(|d| of(explain(gpu.caps(), d, 1))).collect())
}

/// Time of each kernel of one decode step, the slowest first; the median of five steps.
async fn profile(gpu: &Gpu, session: &mut Session) -> Result<Vec<Value>, Failure> {
    if !gpu.caps().timestamps {
        return Ok(Vec::new());
    }
    let mut kernels: BTreeMap<String, (usize, Vec<f64>, Option<u64>)> = BTreeMap::new();
    for _ in 0..5 {
        session.truncate(0, 0);
        session.seek(Tail::Greedy, 0, 1)?;
        let bytes = expert_bytes(gpu, session)?;
        let timings = gpu.profile(session.decode_plan(Tail::Greedy)?.plan()).await?;
        let mut step: BTreeMap<String, (usize, f64, Option<u64>)> = BTreeMap::new();
        for (i, t) in timings.into_iter().enumerate() {
            let moved = bytes.get(i).copied().flatten().or(t.moved_bytes);
            let entry = step.entry(t.label).or_insert((0, 0.0, Some(0)));
            entry.0 += 1;
            entry.1 += t.nanoseconds / 1e3;
            entry.2 = entry.2.zip(moved).map(|(sum, bytes)| sum + bytes);
        }
        for (label, (count, us, bytes)) in step {
            let entry = kernels.entry(label).or_default();
            entry.0 = count;
            entry.1.push(us);
            entry.2 = bytes;
        }
    }
    let mut rows: Vec<Value> = kernels
        .into_iter()
        .map(|(kernel, (count, mut us, bytes))| {
            us.sort_by(f64::total_cmp);
            let us = us[us.len() / 2];
            let rate = bytes.map(|bytes| bytes as f64 / us.max(1e-3) / 1e3);
            json!({ "kernel": kernel, "count": count, "us": us, "gb_per_s": rate })
        })
        .collect();
    rows.sort_by(|a, b| b["us"].as_f64().unwrap_or(0.0).total_cmp(&a["us"].as_f64().unwrap_or(0.0)));
    Ok(rows)
}

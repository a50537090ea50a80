//! `girih generate`: continue a text.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use girih_model::{Generated, Routing, Session};
use serde_json::json;

use super::sampling::SamplingArgs;
use crate::error::Failure;
use crate::models::{ModelArgs, SessionArgs};
use crate::{Global, device};

/// Arguments.
#[derive(Debug, Args)]
pub struct Generate {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    session: SessionArgs,
    /// Text to continue
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// Tokens to generate at most
    #[arg(long, value_name = "N", default_value_t = 200)]
    max_tokens: usize,
    /// Go on after the model's end-of-text tokens
    #[arg(long)]
    ignore_eos: bool,
    /// Write which experts each token went to, layer by layer, to a JSON file (mixtures of experts)
    #[arg(long, value_name = "FILE")]
    trace_experts: Option<PathBuf>,
    #[command(flatten)]
    sampling: SamplingArgs,
}

impl Generate {
    /// Runs the command.
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let start = Instant::now();
        let gpu = device::open(global).await?;
        let model = self.model.load(&gpu, Some(self.session.options()), global).await?;
        if self.trace_experts.is_some()
            && model.decoder()?.blocks.iter().all(|b| b.feed_forward().mixture().is_none())
        {
            let name = self.model.name();
            return Err(Failure::Argument(format!("--trace-experts: {name} has no experts")));
        }
        let ids = model.tokenizer()?.encode(&self.prompt, true).map_err(girih_model::RunError::from)?;
        let mut session = Session::new(&model, self.session.options())?;
        let mut options = self.sampling.options(&model, self.max_tokens);
        if self.ignore_eos {
            options.stop_ids.clear();
        }
        let load_seconds = start.elapsed().as_secs_f64();
        let mut out = std::io::stdout().lock();
        let mut broken = None;
        // The prompt is shown with the first new text: not before it is known to be good.
        let mut prompt = Some(self.prompt.as_str());
        let generated =
            girih_model::generate(&mut session, Some(model.tokenizer()?), &ids, &options, |piece| {
                if global.json {
                    return ControlFlow::Continue(());
                }
                let prompt = prompt.take().unwrap_or_default();
                match write!(out, "{prompt}{piece}").and_then(|()| out.flush()) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(e) => {
                        broken = Some(e);
                        ControlFlow::Break(())
                    }
                }
            })
            .await?;
        gpu.save_pipeline_cache();
        if let Some(e) = broken {
            return Err(e.into());
        }
        if let Some(path) = &self.trace_experts {
            let all: Vec<u32> = ids.iter().chain(&generated.token_ids).copied().collect();
            // The last token was written, not read.
            let read = &all[..all.len().saturating_sub(usize::from(!generated.token_ids.is_empty()))];
            let trace = trace(&all, ids.len(), &model.routing(read).await?);
            std::fs::write(path, serde_json::to_vec(&trace).map_err(std::io::Error::from)?)?;
        }
        if global.json {
            writeln!(out, "{}", report(&ids, load_seconds, &generated))?;
        } else {
            writeln!(out, "{}", prompt.unwrap_or_default())?;
            eprintln!("{}", summary(&generated));
        }
        Ok(())
    }
}

/// Experts and weights `[[expert, weight], ..]` of each token that the model read, for each layer.
fn trace(token_ids: &[u32], prompt_tokens: usize, routing: &Routing) -> serde_json::Value {
    let layers: Vec<_> = routing
        .layers
        .iter()
        .map(|l| json!({ "layer": l.layer, "experts": l.experts, "routes": l.tokens }))
        .collect();
    json!({ "token_ids": token_ids, "prompt_tokens": prompt_tokens, "layers": layers })
}

/// Tokens that the decode seconds were spent on: all but the first, which the prefill gave.
fn decoded(g: &Generated) -> f64 {
    g.token_ids.len().saturating_sub(1) as f64
}

fn report(prompt_ids: &[u32], load_seconds: f64, g: &Generated) -> serde_json::Value {
    json!({
        "text": g.text,
        "token_ids": g.token_ids,
        "prompt_ids": prompt_ids,
        "finish_reason": g.finish.name(),
        "timings": {
            "load_seconds": load_seconds,
            "prompt_tokens": g.prompt_tokens,
            "cached_tokens": g.cached_tokens,
            "prefill_seconds": g.prefill_seconds,
            "decode_tokens": g.token_ids.len(),
            "decode_seconds": g.decode_seconds,
            "decode_tokens_per_second": if g.decode_seconds > 0.0 { decoded(g) / g.decode_seconds } else { 0.0 },
        },
        "dispatches_per_token": g.dispatches_per_token,
    })
}

/// One line for people.
pub fn summary(g: &Generated) -> String {
    format!(
        "[{} prompt tokens in {:.2} s; {} tokens, {:.1} tokens/s; {} dispatches per token; {}]",
        g.prompt_tokens,
        g.prefill_seconds,
        g.token_ids.len(),
        decoded(g) / g.decode_seconds.max(1e-9),
        g.dispatches_per_token,
        g.finish.name()
    )
}

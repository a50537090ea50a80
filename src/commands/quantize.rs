//! `girih quantize`: a dense checkpoint becomes a quantised one.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use girih_model::LoadOptions;
use girih_quantize::{Scheme, schemes};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::error::Failure;
use crate::models;
use crate::quantize::calibrate::Calibration;
use crate::quantize::{Job, dense_config, evaluate, report};
use crate::{Global, device};

/// Channels for which the list of schemes states bits per weight.
const LISTED_K: u32 = 4096;

/// Arguments.
#[derive(Debug, Args)]
pub struct Quantize {
    /// Checkpoint folder to quantise; `fable-5m` and `fable-moe` are the built-in models where there are no such folders
    #[arg(value_name = "IN")]
    input: Option<PathBuf>,
    /// Folder to write
    #[arg(value_name = "OUT")]
    out: Option<PathBuf>,
    /// Formats and method, for example w4a16 or w4a8-flat-free-gptq; `help` lists them
    #[arg(long, value_name = "NAME")]
    scheme: String,
    /// Text that the inputs of matrices are measured with; a built-in text if left out
    #[arg(long, value_name = "FILE")]
    calib: Option<PathBuf>,
    /// Use at most this many tokens of it
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    calib_tokens: usize,
    /// Seed of everything random: same seed, same bytes
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Statistics, and what GPTQ works with, in host memory at a time, in GB: less means more passes of the text
    #[arg(long, value_name = "GB", default_value_t = 4.0)]
    memory: f64,
    /// Do not compare with the dense model at the end
    #[arg(long)]
    no_eval: bool,
    /// Replace OUT if girih has written it
    #[arg(long)]
    force: bool,
    /// Throw away an unfinished run with other options
    #[arg(long)]
    restart: bool,
}

impl Quantize {
    /// Runs the command.
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        if self.scheme == "help" {
            return list(global);
        }
        let bad = |e: girih_quantize::QuantizeError| {
            Failure::Argument(format!("{e}; `girih quantize --scheme help` lists schemes"))
        };
        let scheme: Scheme = self.scheme.parse().map_err(bad)?;
        let (Some(input), Some(out)) = (&self.input, &self.out) else {
            return Err(Failure::Argument("a folder to read and one to write are needed: IN OUT".into()));
        };
        if !(self.memory > 0.0 && self.memory.is_finite()) {
            return Err(Failure::Argument(format!("--memory is {}, must be more than 0", self.memory)));
        }
        let source = models::source(Some(input));
        let name = input.display().to_string();
        crate::quantize::check_target(out, self.force)?;
        dense_config(&*source, &name).await?;
        let gpu = device::open(global).await?;
        let model = models::load(&gpu, source.clone(), LoadOptions::default(), &name, global).await?;
        // The encoders predict no next token: nothing to compare.
        let decoder = model.decoder().is_ok();
        let evaluates = !self.no_eval && decoder;
        if !self.no_eval && !decoder {
            global.note(&format_args!(
                "{name} is an encoder: it has no perplexity, and is not compared with the result"
            ));
        }
        let calibrates = scheme.needs_calibration() || self.calib.is_some();
        let text = if calibrates || evaluates {
            Some(Calibration::load(&model, self.calib.as_deref(), self.calib_tokens)?)
        } else {
            None
        };
        let job = Job {
            model: &model,
            source: &source,
            scheme,
            seed: self.seed,
            calibration: text.as_ref().filter(|_| calibrates),
            memory: (self.memory * 1e9) as u64,
            out,
            force: self.force,
            restart: self.restart,
        };
        let bar = bar(global);
        let written = job.run(&name, &bar).await;
        if written.is_err() {
            bar.finish_and_clear();
        }
        let written = written?;
        bar.set_message("comparing");
        let compared = match &text {
            Some(text) if evaluates => {
                let c = evaluate(&model, written.path(), &text.held_out, text.eval_options()).await;
                Some(c.map(|c| report::evaluation(text, &c)))
            }
            _ => None,
        };
        bar.finish_and_clear();
        let (evaluation, failure) = match compared {
            Some(Ok(evaluation)) => (evaluation, None),
            Some(Err(failure)) => (Value::Null, Some(failure)),
            None => (Value::Null, None),
        };
        let summary = report::report(&name, &job, &written, &evaluation);
        let resumed = written.resumed;
        written.finish(out, self.force, &summary)?;
        let mut stdout = std::io::stdout().lock();
        if global.json {
            writeln!(stdout, "{}", json!({ "out": out, "resumed_steps": resumed, "report": summary }))?;
        } else {
            write!(stdout, "{}", report::table(&summary))?;
            writeln!(stdout, "{}: {scheme}, see quantize-report.html in it", out.display())?;
        }
        match failure {
            None => Ok(()),
            Some(failure) => Err(Failure::Check(format!(
                "{}: is written, but cannot be compared: {failure}",
                out.display()
            ))),
        }
    }
}

fn bar(global: &Global) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() && !global.json {
        ProgressBar::new(0)
    } else {
        ProgressBar::hidden()
    };
    if let Ok(style) = ProgressStyle::with_template("{pos}/{len} {wide_bar} {eta} {msg}") {
        bar.set_style(style);
    }
    bar
}

/// `--scheme help`
fn list(global: &Global) -> Result<(), Failure> {
    let schemes = schemes();
    let mut out = std::io::stdout().lock();
    if global.json {
        let list: Vec<Value> = schemes
            .iter()
            .map(|s| {
                json!({ "name": s.name, "about": s.about, "bits_per_weight": s.bits_per_weight(LISTED_K),
                    "needs_calibration": s.scheme.needs_calibration() })
            })
            .collect();
        writeln!(out, "{}", json!({ "schemes": list }))?;
        return Ok(());
    }
    writeln!(out, "{:<22} {:>11}  {:<12}", "scheme", "bits/weight", "calibration")?;
    for s in &schemes {
        let needs = if s.scheme.needs_calibration() { "yes" } else { "no" };
        writeln!(out, "{:<22} {:>11.3}  {needs:<12} {}", s.name, s.bits_per_weight(LISTED_K), s.about)?;
    }
    writeln!(
        out,
        "\nBits per weight of rows of {LISTED_K} channels. More combinations: BASE[-gN][-asym][-a8][-TRANSFORM][-mse][-gptq]."
    )?;
    Ok(())
}

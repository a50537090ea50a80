//! `girih bench quality`: what each scheme of quantisation costs a model, in perplexity and divergence.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use girih_kernels::Gpu;
use girih_model::{EvalOptions, Model, RunError, Session, SessionOptions, perplexity};
use girih_quantize::{Scheme, schemes};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::read_text;
use crate::error::Failure;
use crate::models::ModelArgs;
use crate::quantize::calibrate::Calibration;
use crate::quantize::{Job, dense_config, evaluate, report};
use crate::{Global, device};

/// Arguments.
#[derive(Debug, Args)]
pub struct BenchQuality {
    #[command(flatten)]
    model: ModelArgs,
    /// Text to score; may be given several times
    #[arg(long, value_name = "FILE", required = true)]
    text: Vec<PathBuf>,
    /// Schemes, separated by commas; all that `girih quantize --scheme help` lists if left out
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    schemes: Vec<String>,
    /// Score at most this many tokens of each text
    #[arg(long, value_name = "N", default_value_t = 2000)]
    max_tokens: usize,
    /// Text of calibration; the built-in one if left out
    #[arg(long, value_name = "FILE")]
    calib: Option<PathBuf>,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Also write the table to a Markdown file
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// A text to score.
struct Text {
    name: String,
    ids: Vec<u32>,
}

/// A folder that is removed when dropped.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl BenchQuality {
    /// Runs the command.
    pub async fn run(self, gpu: &Gpu, global: &Global) -> Result<(), Failure> {
        let schemes = self.schemes()?;
        if self.model.weights.is_some() || self.model.activations.is_some() {
            let message = "--weights and --activations change what schemes are compared with: the model as it is stored";
            return Err(Failure::Argument(message.into()));
        }
        if self.model.expert_memory.is_some() {
            let message = "--expert-memory: schemes are compared with all experts on the GPU";
            return Err(Failure::Argument(message.into()));
        }
        let source = self.model.source();
        dense_config(&*source, &self.model.name()).await?;
        let model = self.model.load(gpu, Some(SessionOptions::default()), global).await?;
        model.decoder()?;
        let calibration = Calibration::load(&model, self.calib.as_deref(), usize::MAX)?;
        let mut texts = Vec::new();
        for path in &self.text {
            let mut ids = model.tokenizer()?.encode(&read_text(path)?, false).map_err(RunError::from)?;
            ids.truncate(self.max_tokens);
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            texts.push(Text { name, ids });
        }
        let options = EvalOptions { window: calibration.window, bos: model.bos_id() };
        let mut session = Session::new(&model, SessionOptions::default())?;
        let mut dense = Vec::new();
        for text in &texts {
            let result = perplexity(&mut session, &text.ids, options, |_| ()).await?;
            dense.push(json!({ "text": text.name, "tokens": result.token_nll.len(), "perplexity": result.perplexity }));
        }
        drop(session);
        let mut rows = Vec::new();
        let folder = std::env::temp_dir().join(format!("girih-quality-{}", std::process::id()));
        let folder = Temporary(folder);
        for scheme in schemes {
            eprintln!("{scheme}");
            let row = self.scheme(&model, &calibration, scheme, &texts, options, &folder.0).await;
            // One scheme that this model cannot have is no reason to lose the others.
            rows.push(
                row.unwrap_or_else(|e| json!({ "scheme": scheme.to_string(), "error": e.to_string() })),
            );
        }
        let report = json!({ "model": self.model.name(), "device": device::describe(gpu.caps()), "window": options.window,
            "calibration": { "text": calibration.name, "tokens": calibration.tokens() }, "dense": dense, "schemes": rows });
        let table = markdown(&report);
        if let Some(path) = &self.markdown {
            std::fs::write(path, &table)
                .map_err(|source| Failure::File { path: path.display().to_string(), source })?;
        }
        let mut out = std::io::stdout().lock();
        if global.json {
            writeln!(out, "{report}")?;
        } else {
            write!(out, "{table}")?;
        }
        Ok(())
    }

    fn schemes(&self) -> Result<Vec<Scheme>, Failure> {
        if self.schemes.is_empty() {
            return Ok(schemes().into_iter().map(|s| s.scheme).collect());
        }
        let parse = |name: &String| name.parse().map_err(|e| Failure::Argument(format!("{e}")));
        self.schemes.iter().map(parse).collect()
    }

    async fn scheme(
        &self,
        model: &Arc<Model>,
        calibration: &Calibration,
        scheme: Scheme,
        texts: &[Text],
        options: EvalOptions,
        folder: &Path,
    ) -> Result<Value, Failure> {
        let folder = Temporary(folder.join(scheme.to_string()));
        let out = folder.0.join("model");
        let source = self.model.source();
        let job = Job {
            model,
            source: &source,
            scheme,
            seed: self.seed,
            // As `girih quantize` does it: searches of scales weigh channels by their inputs where there are any.
            calibration: Some(calibration).filter(|_| scheme.needs_calibration()),
            memory: 4_000_000_000,
            out: &out,
            force: false,
            restart: false,
        };
        let written = job.run(&self.model.name(), &ProgressBar::hidden()).await?;
        let mut scores = Vec::new();
        for text in texts {
            let c = evaluate(model, written.path(), &text.ids, options).await?;
            scores.push(json!({ "text": text.name, "perplexity": c.model.perplexity,
                "perplexity_ratio": c.model.perplexity / c.reference.perplexity, "kl_per_token": c.kl,
                "same_top_token": c.same_top }));
        }
        let summary = report::report(&self.model.name(), &job, &written, &Value::Null);
        let mut outputs: Vec<f64> =
            written.modules.iter().filter_map(|m| m["output_sqnr_db"].as_f64()).collect();
        outputs.sort_by(f64::total_cmp);
        Ok(json!({ "scheme": scheme.to_string(), "bits_per_weight": summary["bits_per_weight"],
            "bytes": written.bytes_after, "median_output_sqnr_db": outputs.get(outputs.len() / 2), "texts": scores }))
    }
}

/// The table of the report.
fn markdown(report: &Value) -> String {
    let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
    let dense = list(&report["dense"]);
    let fixed =
        |v: &Value, digits: usize| v.as_f64().map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"));
    let mut head = "| scheme | bits/weight | MB | output SQNR, dB |".to_owned();
    let mut line = "|---|---:|---:|---:|".to_owned();
    let mut first = "| as it is | | | |".to_owned();
    for text in &dense {
        let name = text["text"].as_str().unwrap_or_default();
        let _ = write!(head, " {name}: perplexity | ratio | KL | same top |");
        line += "---:|---:|---:|---:|";
        let _ = write!(first, " {} | 1 | 0 | 1 |", fixed(&text["perplexity"], 4));
    }
    let mut out = format!(
        "Model {}, windows of {} tokens, calibrated with {} tokens of {}, {}.\n\n{head}\n{line}\n{first}\n",
        report["model"].as_str().unwrap_or_default(),
        report["window"],
        report["calibration"]["tokens"],
        report["calibration"]["text"].as_str().unwrap_or_default(),
        report["device"].as_str().unwrap_or_default()
    );
    for row in list(&report["schemes"]) {
        let name = row["scheme"].as_str().unwrap_or_default();
        if let Some(error) = row["error"].as_str() {
            let cells = 4 * dense.len() + 2;
            let _ = writeln!(out, "| {name} | {} |{}", error.replace(['|', '\n'], " "), " |".repeat(cells));
            continue;
        }
        let megabytes = row["bytes"].as_f64().unwrap_or(0.0) / 1e6;
        let bits = fixed(&row["bits_per_weight"], 3);
        let _ =
            write!(out, "| {name} | {bits} | {megabytes:.2} | {} |", fixed(&row["median_output_sqnr_db"], 1));
        for text in list(&row["texts"]) {
            let _ = write!(
                out,
                " {} | {} | {} | {} |",
                fixed(&text["perplexity"], 4),
                fixed(&text["perplexity_ratio"], 4),
                fixed(&text["kl_per_token"], 5),
                fixed(&text["same_top_token"], 4)
            );
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_columns_of_the_head() {
        let dense = |name: &str| json!({ "text": name, "perplexity": 2.0 });
        let score = json!({ "perplexity": 2.5, "perplexity_ratio": 1.25, "kl_per_token": 0.1, "same_top_token": 0.9 });
        let report = json!({ "model": "m", "device": "d", "window": 9, "calibration": { "text": "t", "tokens": 5 },
            "dense": [dense("a"), dense("b")], "schemes": [
            { "scheme": "w4a16", "bits_per_weight": 4.125, "bytes": 1e6, "texts": [score, score] },
            { "scheme": "w8a8", "error": "no | such\nthing" }] });
        let table = markdown(&report);
        let columns: Vec<usize> =
            table.lines().filter(|l| l.starts_with('|')).map(|l| l.matches('|').count()).collect();
        assert_eq!(columns, [13; 5], "{table}");
        assert!(
            table.contains("| w4a16 | 4.125 | 1.00 | - | 2.5000 | 1.2500 | 0.10000 | 0.9000 |"),
            "{table}"
        );
    }
}

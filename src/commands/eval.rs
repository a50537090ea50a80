//! `girih eval`: how well a model predicts a text, and how far it is from another.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use girih_model::{EvalOptions, Session};
use serde_json::json;

use super::read_text;
use crate::error::Failure;
use crate::models::{ModelArgs, SessionArgs};
use crate::{Global, device};

/// Arguments.
#[derive(Debug, Args)]
pub struct Eval {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    session: SessionArgs,
    /// Text file whose perplexity is measured
    #[arg(long, value_name = "FILE")]
    perplexity: PathBuf,
    /// Checkpoint folder or GGUF file of a model to compare with: the one that --model is a quantised form of
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    /// Tokens that are scored together
    #[arg(long, value_name = "TOKENS", default_value_t = 500)]
    window: usize,
    /// Score at most this many tokens
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Put no begin-of-text token in front of each window
    #[arg(long)]
    no_bos: bool,
}

impl Eval {
    /// Runs the command.
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        if self.window == 0 {
            return Err(Failure::Argument("--window is 0, must be at least 1".into()));
        }
        let text = read_text(&self.perplexity)?;
        let gpu = device::open(global).await?;
        let model = self.model.load(&gpu, Some(self.session.options()), global).await?;
        let encode = |model: &girih_model::Model| {
            model.tokenizer()?.encode(&text, false).map_err(girih_model::RunError::from)
        };
        let mut ids = encode(&model)?;
        let mut window = self.window.min(model.context() as usize - 1).max(1);
        let bos = model.bos_id().filter(|_| !self.no_bos);
        let mut session = Session::new(&model, self.session.options())?;
        let reference = match &self.reference {
            None => None,
            Some(dir) => {
                // Of the model's own element type: the reference is what it is.
                let args = ModelArgs {
                    model: Some(dir.clone()),
                    weights: None,
                    activations: None,
                    ..self.model.clone()
                };
                let reference = args.load(&gpu, Some(self.session.options()), global).await?;
                if encode(&reference)? != ids || reference.bos_id() != model.bos_id() {
                    let message = "the model and its reference make different tokens of the text";
                    return Err(Failure::Argument(message.into()));
                }
                window = window.min(reference.context() as usize - 1).max(1);
                Some(Session::new(&reference, self.session.options())?)
            }
        };
        ids.truncate(self.max_tokens.unwrap_or(usize::MAX));
        let options = EvalOptions { window, bos };
        let progress = |done| {
            if global.verbose > 0 {
                eprintln!("{done} of {} tokens", ids.len());
            }
        };
        let (result, comparison) = match reference {
            None => (girih_model::perplexity(&mut session, &ids, options, progress).await?, None),
            Some(mut reference) => {
                let c = girih_model::compare(&mut session, &mut reference, &ids, options, progress).await?;
                (c.model.clone(), Some(c))
            }
        };
        let mut out = std::io::stdout().lock();
        let ratio = |c: &girih_model::Comparison| c.model.perplexity / c.reference.perplexity;
        if global.json {
            let mut report = json!({ "perplexity": result.perplexity, "nll_per_token": result.nll,
                "tokens": result.token_nll.len(), "window": window, "bos_before_each_window": bos.is_some() });
            if let Some(c) = &comparison {
                report["reference"] =
                    json!({ "perplexity": c.reference.perplexity, "nll_per_token": c.reference.nll });
                report["perplexity_ratio"] = ratio(c).into();
                report["kl_per_token"] = c.kl.into();
                report["same_top_token"] = c.same_top.into();
            }
            writeln!(out, "{report}")?;
        } else {
            writeln!(
                out,
                "perplexity {:.4} ({:.5} nats per token, {} tokens, windows of {window}{})",
                result.perplexity,
                result.nll,
                result.token_nll.len(),
                if bos.is_some() { ", begin-of-text before each" } else { "" }
            )?;
            if let Some(c) = &comparison {
                writeln!(
                    out,
                    "reference  {:.4} ({:.5} nats per token); ratio {:.5}, KL(reference || model) {:.6} nats per \
                     token, same most likely token {:.2} %",
                    c.reference.perplexity,
                    c.reference.nll,
                    ratio(c),
                    c.kl,
                    100.0 * c.same_top
                )?;
            }
        }
        Ok(())
    }
}

//! `girih eval`: how well a model predicts a text.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use girih_model::{EvalOptions, Session, SessionOptions};
use serde_json::json;

use super::read_text;
use crate::error::Failure;
use crate::models::ModelArgs;
use crate::{Global, device};

/// Arguments.
#[derive(Debug, Args)]
pub struct Eval {
    #[command(flatten)]
    model: ModelArgs,
    /// Text file whose perplexity is measured
    #[arg(long, value_name = "FILE")]
    perplexity: PathBuf,
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
        let model = self.model.load(&gpu, global).await?;
        let tokenizer = model.tokenizer()?;
        let mut ids = tokenizer.encode(&text, false).map_err(girih_model::RunError::from)?;
        ids.truncate(self.max_tokens.unwrap_or(usize::MAX));
        let window = self.window.min(model.context() as usize - 1).max(1);
        let bos = model.bos_id().filter(|_| !self.no_bos);
        let mut session = Session::new(&model, SessionOptions::default())?;
        let result = girih_model::perplexity(&mut session, &ids, EvalOptions { window, bos }, |done| {
            if global.verbose > 0 {
                eprintln!("{done} of {} tokens", ids.len());
            }
        })
        .await?;
        let mut out = std::io::stdout().lock();
        if global.json {
            let report = json!({ "perplexity": result.perplexity, "nll_per_token": result.nll,
                "tokens": result.token_nll.len(), "window": window, "bos_before_each_window": bos.is_some() });
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
        }
        Ok(())
    }
}

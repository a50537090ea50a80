//! `girih chat`: talk with a model.

use std::io::{BufRead, IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use girih_model::{Conversation, RunError, Session, SessionOptions};
use serde_json::{Value, json};

use super::generate::{SamplingArgs, summary};
use crate::error::Failure;
use crate::models::ModelArgs;
use crate::{Global, device};

/// Arguments.
#[derive(Debug, Args)]
pub struct Chat {
    #[command(flatten)]
    model: ModelArgs,
    /// System message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Tokens of an answer at most
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_tokens: usize,
    #[command(flatten)]
    sampling: SamplingArgs,
}

impl Chat {
    /// Runs the command.
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let gpu = device::open(global).await?;
        let model = self.model.load(&gpu, global).await?;
        let templates = model.chat();
        if templates.is_empty() {
            return Err(Failure::Argument(format!(
                "{} has no chat template (chat_template in tokenizer_config.json); use `girih generate`",
                self.model.name()
            )));
        }
        let mut session = Session::new(&model, SessionOptions::default())?;
        let tokenizer = model.tokenizer()?;
        let mut options = self.sampling.options(&model, self.max_tokens);
        options.stop_ids = model.answer_stop_ids(templates);
        options.continues = false;
        // The first Ctrl-C during an answer ends the answer; at the prompt it ends the program.
        let answering = Arc::new(AtomicBool::new(false));
        let cancelled = Arc::new(AtomicBool::new(false));
        let (a, c) = (answering.clone(), cancelled.clone());
        let handler = ctrlc::set_handler(move || {
            if !a.load(Ordering::SeqCst) || c.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
        });
        if let Err(e) = handler {
            tracing::warn!("Ctrl-C cannot be caught: {e}");
        }
        let interactive = std::io::stdin().is_terminal();
        let mut messages: Vec<Value> = Vec::new();
        if let Some(system) = &self.system {
            messages.push(json!({ "role": "system", "content": system }));
        }
        if interactive {
            eprintln!(
                "{} on {}. Ctrl-C stops an answer, Ctrl-D ends.",
                self.model.name(),
                device::describe(gpu.caps())
            );
        }
        let mut lines = std::io::stdin().lock().lines();
        loop {
            if interactive {
                eprint!("> ");
            }
            let file = |source| Failure::File { path: "standard input".into(), source };
            let Some(line) = lines.next().transpose().map_err(file)? else { return Ok(()) };
            if line.trim().is_empty() {
                continue;
            }
            messages.push(json!({ "role": "user", "content": line }));
            let conversation = Conversation {
                messages: messages.clone().into(),
                add_generation_prompt: true,
                ..Conversation::default()
            };
            let prompt = templates.render(&conversation).map_err(RunError::from)?;
            let ids = tokenizer.encode(&prompt, false).map_err(RunError::from)?;
            cancelled.store(false, Ordering::SeqCst);
            answering.store(true, Ordering::SeqCst);
            let mut out = std::io::stdout().lock();
            let mut written = Ok(());
            let generated = girih_model::generate(&mut session, Some(tokenizer), &ids, &options, |piece| {
                if !global.json {
                    written = write!(out, "{piece}").and_then(|()| out.flush());
                }
                if written.is_err() || cancelled.load(Ordering::SeqCst) {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })
            .await;
            answering.store(false, Ordering::SeqCst);
            written?;
            let generated = match generated {
                Ok(generated) => generated,
                Err(e @ RunError::PromptTooLong { .. }) => {
                    eprintln!("error: {e}; the conversation starts anew");
                    messages.truncate(usize::from(self.system.is_some()));
                    continue;
                }
                Err(e) => return Err(e.into()),
            };
            if global.json {
                let answer = json!({ "text": generated.text, "finish_reason": generated.finish.name(),
                    "prompt_tokens": generated.prompt_tokens, "cached_tokens": generated.cached_tokens });
                writeln!(out, "{answer}")?;
            } else {
                writeln!(out)?;
                if global.verbose > 0 {
                    eprintln!(
                        "{} {} tokens came from the cache",
                        summary(&generated),
                        generated.cached_tokens
                    );
                }
            }
            messages.push(json!({ "role": "assistant", "content": generated.text }));
        }
    }
}

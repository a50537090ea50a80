//! `girih chat`: talk with a model.

use std::io::{BufRead, IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use girih_model::{Canceller, Finish, GenerateOptions, Generated, RunError, Session};
use serde_json::json;

use super::generate::summary;
use super::sampling::SamplingArgs;
use crate::error::Failure;
use crate::history::{Fitted, History};
use crate::models::{ModelArgs, SessionArgs};
use crate::templates::{self, Template, TemplateArgs};
use crate::{Global, device};

/// Arguments.
#[derive(Debug, Args)]
pub struct Chat {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    session: SessionArgs,
    /// System message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    template: TemplateArgs,
    /// Tokens of an answer at most
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_tokens: usize,
    #[command(flatten)]
    sampling: SamplingArgs,
}

impl Chat {
    /// Runs the command.
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let template = self.template.read()?;
        let gpu = device::open(global).await?;
        let model = self.model.load(&gpu, Some(self.session.options()), global).await?;
        let name = self.model.name();
        let template = templates::choose(template, &model, self.model.model.as_deref(), &name)?;
        let session = Session::new(&model, self.session.options())?;
        let mut options = self.sampling.answer_options(&model, self.max_tokens);
        options.stop_ids = model.answer_stop_ids(&template.templates);
        options.stop.extend(template.stop.iter().cloned());
        let interrupt = Interrupt::catch(session.canceller().clone());
        let history = History::new(self.system.as_deref());
        let mut talk = Talk { session, template, options, history, interrupt };
        let interactive = std::io::stdin().is_terminal();
        if interactive {
            let device = device::describe(gpu.caps());
            eprintln!("{name} on {device}. Ctrl-C stops an answer, Ctrl-D ends.");
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
            match talk.answer(&line, global).await {
                // Who sits before it can write a shorter one; a script must not mistake the next answer for this one.
                Err(Failure::Run(e @ RunError::PromptTooLong { .. })) if interactive => {
                    eprintln!("error: {e}");
                }
                answered => answered?,
            }
        }
    }
}

/// Ctrl-C during an answer ends the answer, in the middle of a prompt too; at the prompt, or a second time, the program.
struct Interrupt {
    answering: Arc<AtomicBool>,
    pressed: Arc<AtomicBool>,
}

impl Interrupt {
    fn catch(canceller: Canceller) -> Self {
        let interrupt = Self { answering: Arc::default(), pressed: Arc::default() };
        let (answering, pressed) = (interrupt.answering.clone(), interrupt.pressed.clone());
        let handler = ctrlc::set_handler(move || {
            if !answering.load(Ordering::SeqCst) || pressed.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
            canceller.cancel();
        });
        if let Err(e) = handler {
            tracing::warn!("Ctrl-C cannot be caught: {e}");
        }
        interrupt
    }

    fn begin(&self) {
        self.pressed.store(false, Ordering::SeqCst);
        self.answering.store(true, Ordering::SeqCst);
    }

    fn end(&self) {
        self.answering.store(false, Ordering::SeqCst);
    }

    fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::SeqCst)
    }
}

/// A conversation that goes on.
struct Talk {
    session: Session,
    template: Template,
    options: GenerateOptions,
    history: History,
    interrupt: Interrupt,
}

impl Talk {
    /// Answers a message on standard output.
    async fn answer(&mut self, message: &str, global: &Global) -> Result<(), Failure> {
        self.history.push("user", message);
        self.interrupt.begin();
        let answered = self.write(global).await;
        self.interrupt.end();
        let (fitted, generated) = answered.inspect_err(|_| self.history.withdraw())?;
        let withdrawn = generated.finish == Finish::Cancelled && generated.text.is_empty();
        if withdrawn {
            // Templates want questions and answers in turn.
            self.history.withdraw();
        } else {
            self.history.push("assistant", &generated.text);
        }
        let mut out = std::io::stdout().lock();
        if global.json {
            let answer = json!({ "text": generated.text, "finish_reason": generated.finish.name(),
                "prompt_tokens": generated.prompt_tokens, "cached_tokens": generated.cached_tokens,
                "left_out_messages": fitted.left_out });
            writeln!(out, "{answer}")?;
            return Ok(());
        }
        writeln!(out)?;
        if withdrawn {
            eprintln!("note: stopped before the answer began; the message is taken back");
        }
        if global.verbose > 0 {
            eprintln!("{} {} tokens came from the cache", summary(&generated), generated.cached_tokens);
        }
        Ok(())
    }

    /// Generates the answer to the last message, and prints it unless it is to be JSON.
    async fn write(&mut self, global: &Global) -> Result<(Fitted, Generated), Failure> {
        let model = self.session.model().clone();
        let context = self.session.cache().capacity();
        let encode = |messages: &[_]| templates::encode(&self.template, &model, messages);
        let fitted = self.history.fit(context, self.options.max_tokens, encode)?;
        if fitted.left_out > 0 && !global.json {
            eprintln!(
                "note: the conversation outgrew the context of {context} tokens (see --context): its {} oldest \
                 messages are left out from here on",
                fitted.left_out
            );
        }
        let mut out = std::io::stdout().lock();
        let mut written = Ok(());
        let (interrupt, tokenizer) = (&self.interrupt, model.tokenizer()?);
        let (session, options) = (&mut self.session, &self.options);
        let generated = girih_model::generate(session, Some(tokenizer), &fitted.ids, options, |piece| {
            if !global.json {
                written = write!(out, "{piece}").and_then(|()| out.flush());
            }
            if written.is_err() || interrupt.is_pressed() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })
        .await?;
        written?;
        Ok((fitted, generated))
    }
}

//! The token loop: ids in, ids and text out.

mod output;

use std::ops::ControlFlow;

use web_time::Instant;

use crate::error::RunError;
use crate::run::model::Model;
use crate::run::sampler::{Sampler, Sampling};
use crate::run::session::{CANDIDATES, Input, Session, Tail};
use crate::text::tokenizer::Tokenizer;

use self::output::Output;

/// What to generate and when to stop.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// Tokens at most.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts at which generation stops; they are not part of the result.
    pub stop: Vec<String>,
    /// Tokens at which generation stops; they are not part of the result.
    pub stop_ids: Vec<u32>,
    /// Whether the new text goes on where the prompt's ends, so that its first word keeps the space in front. Otherwise
    /// it is a text of its own, as an answer is.
    pub continues: bool,
    /// Slot of the cache.
    pub slot: u32,
}

impl GenerateOptions {
    /// A text of at most 200 tokens that goes on where its prompt ends, sampled and ended as the files of the model say.
    pub fn of(model: &Model) -> Self {
        let generation = model.generation();
        Self {
            max_tokens: 200,
            sampling: generation.sampling.clone(),
            stop: generation.stop_strings.clone(),
            stop_ids: model.stop_ids(),
            continues: true,
            slot: 0,
        }
    }
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token or stop text.
    Stop,
    /// `max_tokens` were generated.
    Length,
    /// The cache is full.
    Context,
    /// The caller cancelled, or somebody with the session's [`Canceller`](crate::Canceller).
    Cancelled,
}

impl Finish {
    /// `stop`, `length`, `context`, `cancelled`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Context => "context",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The result.
#[derive(Clone, Debug)]
pub struct Generated {
    /// New tokens.
    pub token_ids: Vec<u32>,
    /// Their text.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were in the cache already.
    pub cached_tokens: usize,
    /// Seconds from the start to the first token.
    pub prefill_seconds: f64,
    /// Seconds from the first token to the last.
    pub decode_seconds: f64,
    /// Dispatches of one decode step.
    pub dispatches_per_token: usize,
}

/// Steps encoded in one submission when tokens are fed back on the GPU. The first bursts are short, so that the
/// first words appear at once.
const BURSTS: [u32; 4] = [1, 2, 4, 8];

/// Continues a prompt. What the cache already holds of it (a common prefix) is not computed again. `on_text` is
/// given each piece of text when it is certain (whole UTF-8 characters, no part of a stop text); it ends the
/// generation by returning [`ControlFlow::Break`].
///
/// # Errors
/// An empty prompt, one that does not fit the cache, bad sampling parameters, a device that fails.
pub async fn generate(
    session: &mut Session,
    tokenizer: Option<&Tokenizer>,
    prompt: &[u32],
    options: &GenerateOptions,
    mut on_text: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Generated, RunError> {
    let slot = options.slot;
    let start = Instant::now();
    let mut sampler = Sampler::new(options.sampling.clone())?;
    let mut output = Output::new(tokenizer, prompt, options, session.canceller().clone())?;
    sampler.begin(prompt.len(), options.max_tokens, &output.stop_ids);
    if prompt.is_empty() {
        return Err(RunError::EmptyPrompt);
    }
    let cached = reuse_prefix(session, slot, prompt);
    let tail = if options.sampling.is_argmax() {
        Tail::Greedy
    } else if options.sampling.fits_candidates(CANDIDATES) {
        Tail::Candidates
    } else {
        Tail::Logits
    };
    session.canceller().reset();
    let logits = session.prefill(Input { slot, token_ids: &prompt[cached..] }).await?;
    let Some(logits) = logits else {
        return Ok(Generated {
            token_ids: Vec::new(),
            text: String::new(),
            finish: Finish::Cancelled,
            prompt_tokens: prompt.len(),
            cached_tokens: cached,
            prefill_seconds: start.elapsed().as_secs_f64(),
            decode_seconds: 0.0,
            dispatches_per_token: 0,
        });
    };
    let logits = logits.to_f32(session.gpu()).await?;
    let first = sampler.sample(&logits, prompt)?;
    let dispatches_per_token = session.decode_plan(tail)?.plan().num_dispatches();
    let prefill_seconds = start.elapsed().as_secs_f64();
    let decode_start = Instant::now();
    let mut flow = output.push(first, &mut on_text)?;
    if flow.is_none() {
        session.seek(tail, slot, first)?;
        flow = Some(match tail {
            Tail::Greedy => greedy(session, &mut output, &mut on_text).await?,
            _ => sampled(session, tail, &mut sampler, &mut output, &mut on_text).await?,
        });
    }
    let finish = output.finish(flow.unwrap_or(Finish::Length), &mut on_text)?;
    Ok(Generated {
        token_ids: output.history.split_off(prompt.len()),
        text: output.text,
        finish,
        prompt_tokens: prompt.len(),
        cached_tokens: cached,
        prefill_seconds,
        decode_seconds: decode_start.elapsed().as_secs_f64(),
        dispatches_per_token,
    })
}

/// Keeps the part of the cache that the prompt begins with; at least one token is left to compute. Keys that were
/// rotated for a sequence on the other side of the length at which the frequencies change are of no use.
fn reuse_prefix(session: &mut Session, slot: u32, prompt: &[u32]) -> usize {
    let known = session.tokens(slot);
    let same_rope = session.rope_switch().is_none_or(|n| (known.len() > n) == (prompt.len() > n));
    let common = known.iter().zip(prompt).take_while(|(a, b)| a == b).count();
    let keep = if same_rope { common.min(prompt.len().saturating_sub(1)) } else { 0 };
    session.truncate(slot, keep);
    keep
}

/// Decodes with the best token fed back on the GPU: the next burst runs while the last one is read.
async fn greedy(
    session: &mut Session,
    output: &mut Output<'_>,
    on_text: &mut impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Finish, RunError> {
    let (gpu, slot) = (session.gpu().clone(), output.options.slot);
    let mut bursts = BURSTS.into_iter().chain(std::iter::repeat(BURSTS[BURSTS.len() - 1]));
    // Steps that read experts are over when they return.
    let is_waiting = session.model().experts().is_some();
    let mut input = *output.history.last().ok_or(RunError::EmptyPrompt)?;
    let mut submitted = 0; // steps
    let mut seen = 0; // tokens taken from `out`
    let mut pending = std::collections::VecDeque::new();
    let room = session.room(slot);
    let wanted = output.left();
    loop {
        while pending.len() < 2 && submitted < room.min(wanted) {
            let burst = if is_waiting { 1 } else { bursts.next().unwrap_or(1) };
            let steps = (burst as usize).min(room.min(wanted) - submitted);
            session.step_async(Tail::Greedy, steps as u32).await?;
            submitted += steps;
            let out = session.decode_plan(Tail::Greedy)?.outputs()[0].buffer();
            let range = out.slice(0, 4 * (1 + submitted as u64)).unwrap_or_else(|| out.clone());
            pending.push_back((gpu.read_later(&range), submitted));
        }
        let Some((read, upto)) = pending.pop_front() else {
            return Ok(if wanted > room { Finish::Context } else { Finish::Length });
        };
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&read.wait().await?);
        for &token in &words[1 + seen..=upto] {
            session.note(slot, input);
            input = token;
            if token == u32::MAX {
                return Err(RunError::NotANumber);
            }
            if let Some(finish) = output.push(token, on_text)? {
                for (read, _) in pending {
                    read.wait().await?; // surplus steps: the next `seek` discards them
                }
                return Ok(finish);
            }
        }
        seen = upto;
    }
}

/// Decodes with the host choosing each token.
async fn sampled(
    session: &mut Session,
    tail: Tail,
    sampler: &mut Sampler,
    output: &mut Output<'_>,
    on_text: &mut impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Finish, RunError> {
    let (gpu, slot) = (session.gpu().clone(), output.options.slot);
    loop {
        if session.room(slot) == 0 {
            return Ok(Finish::Context);
        }
        session.step_async(tail, 1).await?;
        let input = *output.history.last().ok_or(RunError::EmptyPrompt)?;
        let outputs = session.decode_plan(tail)?.outputs();
        let token = if tail == Tail::Candidates {
            let (values, ids) = (outputs[0].read_later(&gpu), outputs[1].read_later(&gpu));
            let values: Vec<f32> = bytemuck::pod_collect_to_vec(&values.wait().await?);
            let ids: Vec<u32> = bytemuck::pod_collect_to_vec(&ids.wait().await?);
            sampler.sample_candidates(&values, &ids, &output.history)?
        } else {
            let logits = outputs[0].to_f32(&gpu).await?;
            sampler.sample(&logits, &output.history)?
        };
        session.note(slot, input);
        if let Some(finish) = output.push(token, on_text)? {
            return Ok(finish);
        }
        session.seek(tail, slot, token)?;
    }
}

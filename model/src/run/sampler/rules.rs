//! What depends on the tokens so far beside the penalties: sequences that are lifted or forbidden, a least length, tokens
//! that are forced or suppressed.
//!
//! Definitions and order are those of transformers' processors of the same names.

use std::collections::{HashMap, HashSet};

use super::SampleError;

/// The largest logit that a rule may give: what grows with the length stays a number.
const LARGEST: f64 = 1e30;

/// Rules of a checkpoint for the choice of tokens. The default has none.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Added to the logit of the last token of a sequence where those before it are the last ones of the text.
    pub sequence_bias: Vec<(Vec<u32>, f32)>,
    /// As the repetition penalty with the inverse, for the tokens of the prompt (`encoder_repetition_penalty`); 1 changes
    /// nothing.
    pub prompt_repetition_penalty: f32,
    /// No sequence of that many tokens occurs twice; 0 allows all.
    pub no_repeat_ngram: usize,
    /// No sequence of that many tokens of the prompt occurs behind it (`encoder_no_repeat_ngram_size`); 0 allows all.
    pub no_repeat_prompt_ngram: usize,
    /// Sequences that do not occur. One that is nothing but an end is left out.
    pub bad_words: Vec<Vec<u32>>,
    /// The text has that many tokens at least, the prompt included, before it ends.
    pub min_length: usize,
    /// That many tokens are generated at least before the text ends.
    pub min_new_tokens: usize,
    /// The token behind a prompt of one token (`forced_bos_token_id`).
    pub forced_first: Option<u32>,
    /// What the last token that may be generated is one of (`forced_eos_token_id`); empty forces none.
    pub forced_last: Vec<u32>,
    /// From that many new tokens on the logit of an end grows by |logit| (f^n - 1), n tokens later.
    pub length_decay: Option<(usize, f32)>,
    /// Tokens that do not occur.
    pub suppress: Vec<u32>,
    /// Tokens that are not the first new one.
    pub suppress_first: Vec<u32>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            sequence_bias: Vec::new(),
            prompt_repetition_penalty: 1.0,
            no_repeat_ngram: 0,
            no_repeat_prompt_ngram: 0,
            bad_words: Vec::new(),
            min_length: 0,
            min_new_tokens: 0,
            forced_first: None,
            forced_last: Vec::new(),
            length_decay: None,
            suppress: Vec::new(),
            suppress_first: Vec::new(),
        }
    }
}

/// What was written so far, and what is to come.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    /// Prompt and new tokens.
    pub tokens: &'a [u32],
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens at most, those of the prompt included.
    pub limit: usize,
    /// Tokens that end the text.
    pub ends: &'a [u32],
}

impl<'a> Past<'a> {
    /// A prompt without an end.
    pub fn prompt(tokens: &'a [u32]) -> Self {
        Self { tokens, prompt: tokens.len(), limit: usize::MAX, ends: &[] }
    }
}

impl Rules {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn validate(&self) -> Result<(), SampleError> {
        let check = |field, value: f32, good: bool, want| {
            if good { Ok(()) } else { Err(SampleError::Parameter { field, got: f64::from(value), want }) }
        };
        let penalty = self.prompt_repetition_penalty;
        check("encoder_repetition_penalty", penalty, (1e-3..=1e3).contains(&penalty), "from 0.001 to 1000")?;
        for &(_, bias) in &self.sequence_bias {
            check("sequence_bias", bias, bias.abs() <= 1e6, "from -1e6 to 1e6")?;
        }
        if let Some((_, factor)) = self.length_decay {
            let good = (1e-3..=1e3).contains(&factor);
            check("exponential_decay_length_penalty", factor, good, "from 0.001 to 1000")?;
        }
        Ok(())
    }
}

/// The rules at one place of the text.
pub(super) struct Here<'a> {
    rules: &'a Rules,
    bias: HashMap<u32, f64>,
    prompt: HashSet<u32>,
    banned: HashSet<u32>,
    suppressed: HashSet<u32>,
    forced: Option<&'a [u32]>,
    /// Ends, and what their logits grow by.
    decay: Option<(&'a [u32], f64)>,
}

impl<'a> Here<'a> {
    pub fn new(rules: &'a Rules, past: &Past<'a>) -> Self {
        let (tokens, length) = (past.tokens, past.tokens.len());
        let prompt = past.prompt.min(length);
        let mut bias: HashMap<u32, f64> = HashMap::new();
        for (sequence, b) in &rules.sequence_bias {
            if let Some(last) = completed(sequence, tokens) {
                *bias.entry(last).or_default() += f64::from(*b);
            }
        }
        let mut banned = HashSet::new();
        ban_repetitions(rules.no_repeat_ngram, tokens, tokens, &mut banned);
        ban_repetitions(rules.no_repeat_prompt_ngram, &tokens[..prompt], tokens, &mut banned);
        for word in &rules.bad_words {
            let is_end = matches!(word[..], [token] if past.ends.contains(&token));
            banned.extend(completed(word, tokens).filter(|_| !is_end));
        }
        if length < rules.min_length || length - prompt < rules.min_new_tokens {
            banned.extend(past.ends);
        }
        let mut suppressed: HashSet<u32> = rules.suppress.iter().copied().collect();
        let begin = prompt + usize::from(prompt <= 1 && rules.forced_first.is_some());
        if length == begin {
            suppressed.extend(&rules.suppress_first);
        }
        let forced = if length.saturating_add(1) == past.limit && !rules.forced_last.is_empty() {
            Some(rules.forced_last.as_slice())
        } else {
            rules.forced_first.as_ref().filter(|_| length == 1).map(std::slice::from_ref)
        };
        let decay = rules.length_decay.and_then(|(start, factor)| {
            let beyond = (length - prompt).checked_sub(start).filter(|&n| n > 0)?;
            let power = f64::from(factor).powi(i32::try_from(beyond).unwrap_or(i32::MAX));
            Some((past.ends, power.min(LARGEST) - 1.0))
        });
        let reused = rules.prompt_repetition_penalty != 1.0;
        let prompt = if reused { tokens[..prompt].iter().copied().collect() } else { HashSet::new() };
        Self { rules, bias, prompt, banned, suppressed, forced, decay }
    }

    /// What the penalties begin with.
    pub fn before(&self, token: u32, logit: f64) -> f64 {
        let mut logit = logit + self.bias.get(&token).copied().unwrap_or(0.0);
        if self.prompt.contains(&token) {
            let penalty = f64::from(self.rules.prompt_repetition_penalty);
            logit = if logit < 0.0 { logit / penalty } else { logit * penalty };
        }
        logit
    }

    /// What becomes of the logit behind the penalties; `None` if the token is forbidden.
    pub fn after(&self, token: u32, logit: f64) -> Option<f64> {
        let mut logit = match self.forced {
            Some(forced) => forced.contains(&token).then_some(0.0)?,
            None if self.banned.contains(&token) => return None,
            None => logit,
        };
        if let Some((ends, growth)) = self.decay
            && logit.is_finite()
            && ends.contains(&token)
        {
            logit = (logit + logit.abs() * growth).clamp(-LARGEST, LARGEST);
        }
        (!self.suppressed.contains(&token)).then_some(logit)
    }
}

/// The last token of a sequence whose tokens before it are the last ones of the text.
fn completed(sequence: &[u32], text: &[u32]) -> Option<u32> {
    let (last, before) = sequence.split_last()?;
    text.ends_with(before).then_some(*last)
}

/// Tokens that would complete a sequence of `size` tokens which occurs in `source`.
fn ban_repetitions(size: usize, source: &[u32], text: &[u32], banned: &mut HashSet<u32>) {
    if size == 0 {
        return;
    }
    let Some(before) = text.len().checked_sub(size - 1).map(|start| &text[start..]) else { return };
    banned.extend(source.windows(size).filter(|w| w.starts_with(before)).map(|w| w[size - 1]));
}

//! From logits to the next token, on the host.
//!
//! Order and definitions are those of transformers' processors: biases, penalties, [`Rules`], temperature, top-h, top-k,
//! top-p, min-p, typical-p, epsilon and eta cutoff.

mod cut;
mod rules;

use std::collections::HashMap;

pub use rules::{Past, Rules};

use rules::Here;

pub use crate::error::SampleError;

/// How to choose the next token. The default is greedy.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the most likely token.
    pub temperature: f32,
    /// Keeps the k largest logits and those equal to the smallest of them; 0 keeps all.
    pub top_k: u32,
    /// Keeps the smallest set of most likely tokens whose probability reaches p; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens of at least this share of the largest probability; 0 keeps all.
    pub min_p: f32,
    /// Keeps tokens while their share of the entropy of the 100 most likely ones sums to this at most; 0 keeps all.
    pub top_h: f32,
    /// Keeps the tokens whose surprise is nearest to the expected one and whose probability together reaches this; 1
    /// keeps all.
    pub typical_p: f32,
    /// Keeps tokens of at least this probability; 0 keeps all.
    pub epsilon_cutoff: f32,
    /// Keeps tokens of at least the smaller of this and its root times exp(-entropy); 0 keeps all.
    pub eta_cutoff: f32,
    /// Positive logits of seen tokens are divided by it, negative ones multiplied; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of seen tokens.
    pub presence_penalty: f32,
    /// Subtracted from the logits of seen tokens, once for each time they were seen.
    pub frequency_penalty: f32,
    /// Added to the logits of tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// What else the checkpoint asks for.
    pub rules: Rules,
    /// Start of the random numbers.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            top_h: 0.0,
            typical_p: 1.0,
            epsilon_cutoff: 0.0,
            eta_cutoff: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            rules: Rules::default(),
            seed: 0,
        }
    }
}

impl Sampling {
    /// Whether the choice is always the largest logit, whatever the tokens before.
    pub fn is_argmax(&self) -> bool {
        self.temperature == 0.0 && self.keeps_logits()
    }

    /// Whether the choice depends on the `k` largest logits only, whatever the tokens before.
    pub fn fits_candidates(&self, k: u32) -> bool {
        // One more than `top_k`, so that ties with the last one are seen.
        self.top_k > 0 && self.top_k < k && self.top_h == 0.0 && self.keeps_logits()
    }

    fn keeps_logits(&self) -> bool {
        self.repetition_penalty == 1.0
            && self.presence_penalty == 0.0
            && self.frequency_penalty == 0.0
            && self.logit_bias.is_empty()
            && self.rules.is_empty()
    }

    /// Checks every parameter.
    ///
    /// # Errors
    /// [`SampleError::Parameter`] naming the first that is out of range.
    pub fn validate(&self) -> Result<(), SampleError> {
        let check = |field, value: f32, good: bool, want| {
            if good && value.is_finite() {
                return Ok(());
            }
            Err(SampleError::Parameter { field, got: f64::from(value), want })
        };
        check("temperature", self.temperature, (0.0..=1e3).contains(&self.temperature), "from 0 to 1000")?;
        check("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0, at most 1")?;
        check("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "from 0 to 1")?;
        check("top_h", self.top_h, (0.0..=1.0).contains(&self.top_h), "from 0 to 1")?;
        let typical = self.typical_p;
        check("typical_p", typical, typical > 0.0 && typical <= 1.0, "above 0, at most 1")?;
        for (field, v) in [("epsilon_cutoff", self.epsilon_cutoff), ("eta_cutoff", self.eta_cutoff)] {
            check(field, v, (0.0..1.0).contains(&v), "from 0, below 1")?;
        }
        let repetition = self.repetition_penalty;
        check("repetition_penalty", repetition, (1e-3..=1e3).contains(&repetition), "from 0.001 to 1000")?;
        for (field, v) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            check(field, v, v.abs() <= 1e3, "from -1000 to 1000")?;
        }
        for &(_, bias) in &self.logit_bias {
            check("logit_bias", bias, bias.abs() <= 1e6, "from -1e6 to 1e6")?;
        }
        self.rules.validate()
    }

    /// Probabilities of the tokens that are kept, most likely first (equal ones by id). `previous`: prompt and
    /// output so far.
    ///
    /// # Errors
    /// NaN or +infinity among the logits; no logit above -infinity; parameters out of range.
    pub fn process(&self, logits: &[f32], previous: &[u32]) -> Result<Vec<(u32, f64)>, SampleError> {
        self.process_after(logits, &Past::prompt(previous))
    }

    /// As [`Sampling::process`], for rules that depend on where the prompt and the text end.
    ///
    /// # Errors
    /// As [`Sampling::process`].
    pub fn process_after(&self, logits: &[f32], past: &Past<'_>) -> Result<Vec<(u32, f64)>, SampleError> {
        self.choose((0..).zip(logits.iter().copied()), logits.len(), past)
    }

    /// As [`Sampling::process`] for the logits of some tokens only: the top candidates that the GPU found.
    /// The probabilities are relative to the candidates. Penalties and biases can lift no token that is not
    /// among them.
    ///
    /// # Errors
    /// As [`Sampling::process`]; another number of ids than values.
    pub fn process_candidates(
        &self,
        values: &[f32],
        ids: &[u32],
        previous: &[u32],
    ) -> Result<Vec<(u32, f64)>, SampleError> {
        if values.len() != ids.len() {
            return Err(SampleError::Candidates { values: values.len(), ids: ids.len() });
        }
        let logits = ids.iter().copied().zip(values.iter().copied());
        self.choose(logits, ids.len(), &Past::prompt(previous))
    }

    fn choose(
        &self,
        logits: impl Iterator<Item = (u32, f32)>,
        len: usize,
        past: &Past<'_>,
    ) -> Result<Vec<(u32, f64)>, SampleError> {
        self.validate()?;
        let mut seen: HashMap<u32, u32> = HashMap::new();
        let penalised =
            (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1.0, 0.0, 0.0);
        if penalised {
            for &token in past.tokens {
                *seen.entry(token).or_default() += 1;
            }
        }
        let mut bias: HashMap<u32, f64> = HashMap::new();
        for &(token, b) in &self.logit_bias {
            *bias.entry(token).or_default() += f64::from(b);
        }
        let rules = (!self.rules.is_empty()).then(|| Here::new(&self.rules, past));
        let mut kept: cut::Kept = Vec::with_capacity(len);
        for (token, got) in logits {
            if got.is_nan() || got == f32::INFINITY {
                return Err(SampleError::NotFinite { token, got });
            }
            let mut logit = f64::from(got);
            if let Some(b) = bias.get(&token) {
                logit += b;
            }
            if let Some(rules) = &rules {
                logit = rules.before(token, logit);
            }
            if let Some(&count) = seen.get(&token) {
                let penalty = f64::from(self.repetition_penalty);
                logit = if logit > 0.0 { logit / penalty } else { logit * penalty };
                logit -= f64::from(self.presence_penalty);
                logit -= f64::from(self.frequency_penalty) * f64::from(count);
            }
            if let Some(rules) = &rules {
                match rules.after(token, logit) {
                    Some(changed) => logit = changed,
                    None => continue,
                }
            }
            if logit > f64::NEG_INFINITY {
                kept.push((token, logit));
            }
        }
        let order = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if self.temperature == 0.0 {
            let best = kept.iter().copied().min_by(order).ok_or(SampleError::NoTokens)?;
            return Ok(vec![(best.0, 1.0)]);
        }
        if kept.is_empty() {
            return Err(SampleError::NoTokens);
        }
        let temperature = f64::from(self.temperature);
        for (_, logit) in &mut kept {
            *logit /= temperature;
        }
        let k = self.top_k as usize;
        if k > 0 && k < kept.len() && self.top_h == 0.0 {
            let border = kept.select_nth_unstable_by(k - 1, order).1.1;
            kept.retain(|&(_, logit)| logit >= border);
        }
        kept.sort_unstable_by(order);
        let max = kept[0].1;
        for (_, v) in &mut kept {
            *v = (*v - max).exp();
        }
        if self.top_h > 0.0 {
            cut::top_h(&mut kept, f64::from(self.top_h));
            if k > 0 && k < kept.len() {
                let border = kept[k - 1].1;
                kept.retain(|t| t.1 >= border);
            }
        }
        if self.top_p < 1.0 {
            let border = f64::from(self.top_p) * kept.iter().map(|t| t.1).sum::<f64>();
            let mut before = 0.0;
            let reached = |t: &(u32, f64)| {
                let keep = before < border;
                before += t.1;
                !keep
            };
            let len = kept.iter().position(reached).unwrap_or(kept.len());
            kept.truncate(len.max(1));
        }
        // The largest is 1 now.
        let share = f64::from(self.min_p);
        let len = kept.partition_point(|t| t.1 >= share);
        kept.truncate(len.max(1));
        if self.typical_p < 1.0 {
            cut::typical(&mut kept, f64::from(self.typical_p));
        }
        if self.epsilon_cutoff > 0.0 {
            cut::epsilon(&mut kept, f64::from(self.epsilon_cutoff));
        }
        if self.eta_cutoff > 0.0 {
            cut::eta(&mut kept, f64::from(self.eta_cutoff));
        }
        let sum: f64 = kept.iter().map(|t| t.1).sum();
        for (_, p) in &mut kept {
            *p /= sum;
        }
        Ok(kept)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and its sequence is the same everywhere, so that a seed reproduces a
/// text.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-53.
    pub fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A stream of choices.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    rng: Rng,
    prompt: usize,
    limit: usize,
    ends: Vec<u32>,
}

impl Sampler {
    /// Checks the parameters and starts the random numbers.
    ///
    /// # Errors
    /// As [`Sampling::validate`].
    pub fn new(sampling: Sampling) -> Result<Self, SampleError> {
        sampling.validate()?;
        let rng = Rng::new(sampling.seed);
        Ok(Self { sampling, rng, prompt: usize::MAX, limit: usize::MAX, ends: Vec::new() })
    }

    /// Says of the text that is to come how many tokens its prompt has, how many may follow, and what ends it. Without,
    /// everything counts as prompt.
    pub fn begin(&mut self, prompt: usize, max_tokens: usize, ends: &[u32]) {
        self.prompt = prompt;
        self.limit = prompt.saturating_add(max_tokens);
        self.ends = ends.to_vec();
    }

    /// The parameters.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Chooses the next token. Every call that is not greedy uses exactly one random number.
    ///
    /// # Errors
    /// As [`Sampling::process`].
    pub fn sample(&mut self, logits: &[f32], previous: &[u32]) -> Result<u32, SampleError> {
        let prompt = self.prompt.min(previous.len());
        let past = Past { tokens: previous, prompt, limit: self.limit, ends: &self.ends };
        let kept = self.sampling.process_after(logits, &past)?;
        Ok(self.draw(&kept))
    }

    /// Chooses among candidates.
    ///
    /// # Errors
    /// As [`Sampling::process_candidates`].
    pub fn sample_candidates(
        &mut self,
        values: &[f32],
        ids: &[u32],
        previous: &[u32],
    ) -> Result<u32, SampleError> {
        let kept = self.sampling.process_candidates(values, ids, previous)?;
        Ok(self.draw(&kept))
    }

    fn draw(&mut self, kept: &[(u32, f64)]) -> u32 {
        let mut left = if self.sampling.temperature == 0.0 { 0.0 } else { self.rng.next_f64() };
        for &(token, p) in kept {
            left -= p;
            if left < 0.0 {
                return token;
            }
        }
        // Rounding may leave a crumb behind the last token.
        kept.last().map_or(0, |t| t.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_out_of_range() {
        let base = Sampling::default;
        for (sampling, field) in [
            (Sampling { temperature: -1.0, ..base() }, "temperature"),
            (Sampling { temperature: f32::NAN, ..base() }, "temperature"),
            (Sampling { top_p: 0.0, ..base() }, "top_p"),
            (Sampling { top_p: 1.1, ..base() }, "top_p"),
            (Sampling { min_p: -0.1, ..base() }, "min_p"),
            (Sampling { repetition_penalty: 0.0, ..base() }, "repetition_penalty"),
            (Sampling { presence_penalty: f32::INFINITY, ..base() }, "presence_penalty"),
            (Sampling { frequency_penalty: f32::NAN, ..base() }, "frequency_penalty"),
            (Sampling { logit_bias: vec![(1, f32::NAN)], ..base() }, "logit_bias"),
        ] {
            let error = Sampler::new(sampling).expect_err(field);
            assert!(matches!(error, SampleError::Parameter { field: f, .. } if f == field), "{error}");
        }
    }

    #[test]
    fn bad_logits() {
        let greedy = Sampling::default();
        assert_eq!(greedy.process(&[], &[]), Err(SampleError::NoTokens));
        assert_eq!(greedy.process(&[f32::NEG_INFINITY], &[]), Err(SampleError::NoTokens));
        assert!(matches!(
            greedy.process(&[0.0, f32::NAN], &[]),
            Err(SampleError::NotFinite { token: 1, .. })
        ));
        assert!(greedy.process_candidates(&[1.0], &[], &[]).is_err());
        let warm = Sampling { temperature: 1.0, ..greedy };
        assert_eq!(warm.process(&[f32::NEG_INFINITY, 3.0], &[]).expect("one token"), [(1, 1.0)]);
    }

    #[test]
    fn penalties_and_bias() {
        let s = Sampling {
            temperature: 1.0,
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            logit_bias: vec![(2, 1.0), (2, 1.0)],
            ..Sampling::default()
        };
        // Token 0 was seen twice: 1 - 0.5 - 2 * 0.25 = 0; token 2 is lifted by 2.
        let p = s.process(&[1.0, 0.0, -2.0], &[0, 0, 9]).expect("processes");
        assert!(p.iter().all(|t| (t.1 - 1.0 / 3.0).abs() < 1e-12), "{p:?}");
    }

    #[test]
    fn candidates_agree_with_the_whole() {
        let logits = [0.3, 2.0, -1.0, 1.5, 2.0];
        let s = Sampling { temperature: 0.7, top_k: 3, top_p: 0.9, ..Sampling::default() };
        let whole = s.process(&logits, &[]).expect("processes");
        let some = s.process_candidates(&[1.5, 2.0, 2.0], &[3, 4, 1], &[]).expect("processes");
        assert_eq!(whole, some);
    }

    /// Frequencies follow the probabilities, and a seed repeats itself.
    #[test]
    fn draws() {
        let s = Sampling { temperature: 1.0, seed: 3, ..Sampling::default() };
        let logits = [0.0, 1.0, 2.0];
        let want = s.process(&logits, &[]).expect("processes");
        let mut sampler = Sampler::new(s.clone()).expect("valid");
        let drawn: Vec<u32> = (0..30_000).map(|_| sampler.sample(&logits, &[]).expect("samples")).collect();
        for (token, p) in want {
            let got = drawn.iter().filter(|&&t| t == token).count() as f64 / drawn.len() as f64;
            assert!((got - p).abs() < 0.015, "token {token}: {got} of {p}"); // 5 standard deviations
        }
        let mut again = Sampler::new(s).expect("valid");
        assert!(drawn.iter().take(50).all(|&t| again.sample(&logits, &[]) == Ok(t)));
        // Reference values of SplitMix64 for seed 0.
        assert_eq!(Rng::new(0).next_u64(), 0xe220_a839_7b1d_cdaf);
    }
}

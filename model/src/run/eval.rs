//! Perplexity of a text, and how far a model is from another.

use crate::error::RunError;
use crate::run::session::{Input, Session};

/// How a long text is cut.
#[derive(Clone, Copy, Debug)]
pub struct EvalOptions {
    /// Tokens that are scored together. Chunks are scored independently of each other.
    pub window: usize,
    /// Token put in front of every chunk; without one the first token of a chunk is not scored.
    pub bos: Option<u32>,
}

/// Result of [`perplexity`].
#[derive(Clone, Debug)]
pub struct Perplexity {
    /// `exp` of the mean negative log-likelihood.
    pub perplexity: f64,
    /// Mean negative log-likelihood in nats.
    pub nll: f64,
    /// Negative log-likelihood of each scored token.
    pub token_nll: Vec<f64>,
}

impl Perplexity {
    fn new(token_nll: Vec<f64>, tokens: usize) -> Result<Self, RunError> {
        if token_nll.is_empty() {
            return Err(RunError::NothingToScore { tokens });
        }
        let nll = token_nll.iter().sum::<f64>() / token_nll.len() as f64;
        if !nll.is_finite() {
            return Err(RunError::NotANumber);
        }
        Ok(Self { perplexity: nll.exp(), nll, token_nll })
    }
}

/// Result of [`compare`].
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Of the model.
    pub model: Perplexity,
    /// Of the reference.
    pub reference: Perplexity,
    /// Mean of `KL(p ‖ q) = Σ p (ln p - ln q)` over the scored tokens, in nats: p what the reference predicts, q what
    /// the model predicts.
    pub kl: f64,
    /// Part of the scored tokens for which both hold the same token for the most likely one.
    pub same_top: f64,
}

/// Perplexity of token ids: `exp(-mean log p(t_i | chunk before i))`.
///
/// # Errors
/// Nothing to score, a window that does not fit the cache, a device that fails.
pub async fn perplexity(
    session: &mut Session,
    ids: &[u32],
    options: EvalOptions,
    mut progress: impl FnMut(usize),
) -> Result<Perplexity, RunError> {
    let mut token_nll = Vec::with_capacity(ids.len());
    let vocab_size = session.model().config().vocab_size;
    check_ids(ids, options, vocab_size)?;
    let vocab_size = vocab_size as usize;
    for input in inputs(ids, options) {
        session.truncate(0, 0);
        let (token_ids, mut targets) = (&input[..input.len() - 1], input[1..].iter());
        let score = |logits: &[f32]| {
            for (row, &target) in logits.chunks_exact(vocab_size).zip(&mut targets) {
                token_nll.push(log_sum_exp(row) - f64::from(row[target as usize]));
            }
            Ok(())
        };
        session.all_logits(Input { slot: 0, token_ids }, score).await?;
        progress(token_nll.len());
    }
    Perplexity::new(token_nll, ids.len())
}

/// Perplexities of a model and a reference, and the divergence of their predictions, computed in f64 from the logits
/// of one piece of the text at a time.
///
/// # Errors
/// Models of different vocabularies, logits that are not finite, and as [`perplexity`].
pub async fn compare(
    model: &mut Session,
    reference: &mut Session,
    ids: &[u32],
    options: EvalOptions,
    mut progress: impl FnMut(usize),
) -> Result<Comparison, RunError> {
    let vocab_size = reference.model().config().vocab_size;
    let got = model.model().config().vocab_size;
    if got != vocab_size {
        return Err(RunError::Vocabulary { got, want: vocab_size });
    }
    check_ids(ids, options, vocab_size)?;
    let v = vocab_size as usize;
    let (mut model_nll, mut reference_nll) = (Vec::new(), Vec::new());
    let (mut kl, mut same) = (0.0, 0usize);
    for input in inputs(ids, options) {
        model.truncate(0, 0);
        reference.truncate(0, 0);
        let token_ids = &input[..input.len() - 1];
        let mut left = [Input { slot: 0, token_ids }; 2];
        let mut rows = [Vec::new(), Vec::new()];
        let mut at = [0, 0];
        for &target in &input[1..] {
            // The two may cut the text differently: each goes on when its piece is used up.
            for (i, session) in [&mut *model, &mut *reference].into_iter().enumerate() {
                if at[i] == rows[i].len() {
                    rows[i] = session.next_logits(&mut left[i]).await?;
                    at[i] = 0;
                }
            }
            let [q, p] = [0, 1].map(|i| &rows[i][at[i]..at[i] + v]);
            at = at.map(|a| a + v);
            let (q_sum, p_sum) = (log_sum_exp(q), log_sum_exp(p));
            model_nll.push(q_sum - f64::from(q[target as usize]));
            reference_nll.push(p_sum - f64::from(p[target as usize]));
            kl += divergence(p, p_sum, q, q_sum);
            same += usize::from(argmax(p) == argmax(q));
        }
        progress(model_nll.len());
    }
    let tokens = model_nll.len() as f64;
    let reference = Perplexity::new(reference_nll, ids.len())?;
    let model = Perplexity::new(model_nll, ids.len())?;
    if !kl.is_finite() {
        return Err(RunError::NotANumber);
    }
    Ok(Comparison { model, reference, kl: kl / tokens, same_top: same as f64 / tokens })
}

fn check_ids(ids: &[u32], options: EvalOptions, vocab_size: u32) -> Result<(), RunError> {
    match ids.iter().chain(&options.bos).find(|&&id| id >= vocab_size) {
        Some(&id) => Err(RunError::TokenId { id, vocab_size }),
        None => Ok(()),
    }
}

/// The chunks that have something to score, each with the token in front.
fn inputs(ids: &[u32], options: EvalOptions) -> impl Iterator<Item = Vec<u32>> {
    ids.chunks(options.window.max(1))
        .map(move |chunk| options.bos.iter().chain(chunk).copied().collect::<Vec<u32>>())
        .filter(|input| input.len() >= 2)
}

fn log_sum_exp(row: &[f32]) -> f64 {
    let max = f64::from(row.iter().copied().fold(f32::MIN, f32::max));
    max + row.iter().map(|&v| (f64::from(v) - max).exp()).sum::<f64>().ln()
}

/// `Σ p (ln p - ln q)` of two rows of logits whose [`log_sum_exp`] is known.
fn divergence(p: &[f32], p_sum: f64, q: &[f32], q_sum: f64) -> f64 {
    let terms = p.iter().zip(q).map(|(&p, &q)| {
        let (p, q) = (f64::from(p) - p_sum, f64::from(q) - q_sum);
        p.exp() * (p - q)
    });
    terms.sum()
}

/// The first of the largest.
fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, v) in row.iter().enumerate() {
        if *v > row[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_of_known_distributions() {
        // p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2), each with some constant added to its logits.
        let (p, q) = ([2.0f32.ln() + 3.0, 3.0, 3.0], [-7.0, -7.0, 2.0f32.ln() - 7.0]);
        let kl = |p: &[f32], q: &[f32]| divergence(p, log_sum_exp(p), q, log_sum_exp(q));
        assert!((kl(&p, &q) - 0.25 * 2f64.ln()).abs() < 1e-6);
        assert!(kl(&p, &p).abs() < 1e-15);
        assert_eq!((argmax(&p), argmax(&q), argmax(&[1.0, 1.0])), (0, 2, 0));
    }
}

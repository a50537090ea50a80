//! Perplexity of a text.

use girih_ops::Tensor;

use crate::error::RunError;
use crate::session::{Input, Rows, Session};

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
    if let Some(&id) = ids.iter().find(|&&id| id >= vocab_size) {
        return Err(RunError::TokenId { id, vocab_size });
    }
    let vocab_size = vocab_size as usize;
    for chunk in ids.chunks(options.window.max(1)) {
        let input: Vec<u32> = options.bos.iter().chain(chunk).copied().collect();
        if input.len() < 2 {
            continue;
        }
        session.truncate(0, 0);
        // Pieces keep the logits [T, V] small.
        let piece = (64 << 20) / (4 * vocab_size).max(1);
        for (i, part) in input[..input.len() - 1].chunks(piece.clamp(1, 512)).enumerate() {
            let logits: Tensor = session.forward(&[Input { slot: 0, token_ids: part }], Rows::All, None)?;
            let logits = logits.to_f32(session.gpu()).await?;
            let first = i * piece.clamp(1, 512);
            for (row, &target) in logits.chunks_exact(vocab_size).zip(&input[first + 1..]) {
                token_nll.push(log_sum_exp(row) - f64::from(row[target as usize]));
            }
        }
        progress(token_nll.len());
    }
    if token_nll.is_empty() {
        return Err(RunError::NothingToScore { tokens: ids.len() });
    }
    let nll = token_nll.iter().sum::<f64>() / token_nll.len() as f64;
    if !nll.is_finite() {
        return Err(RunError::NotANumber);
    }
    Ok(Perplexity { perplexity: nll.exp(), nll, token_nll })
}

fn log_sum_exp(row: &[f32]) -> f64 {
    let max = f64::from(row.iter().copied().fold(f32::MIN, f32::max));
    max + row.iter().map(|&v| (f64::from(v) - max).exp()).sum::<f64>().ln()
}

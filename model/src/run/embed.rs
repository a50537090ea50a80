//! Texts to vectors: states of all tokens, pooled.

use std::sync::Arc;

use girih_ops::{Batch, Chunk, Frame, OpError, Tensor};

use crate::error::RunError;
use crate::network::layers::Trace;
use crate::run::embedding_config::Prompt;
use crate::run::model::Model;
use crate::run::options::SessionOptions;
use crate::run::session::{Input, Session};

/// Tokens of sequences that are embedded together, all counted as long as the longest.
const EMBED_TOKENS: usize = 4096;

impl Model {
    /// Token ids of a text as [`Model::embed`] wants them, with the checkpoint's default prompt.
    ///
    /// # Errors
    /// As [`Model::embedding_ids_with`].
    pub fn embedding_ids(&self, text: &str) -> Result<Vec<u32>, RunError> {
        self.embedding_ids_with(text, Prompt::Default)
    }

    /// Token ids of a text behind a prompt, as [`Model::embed_with`] wants them: with the tokenizer's special tokens, and
    /// no more than the checkpoint (`max_seq_length`) and the context allow; what does not fit is left out
    /// ([`Model::left_out_of`]).
    ///
    /// # Errors
    /// A checkpoint without a tokenizer or without this prompt, text that it cannot encode.
    pub fn embedding_ids_with(&self, text: &str, prompt: Prompt<'_>) -> Result<Vec<u32>, RunError> {
        self.embedding_ids_within(text, prompt, self.embedding_limit() as usize)
    }

    /// Tokens of a sequence that is embedded at most: as many as the checkpoint (`max_seq_length`) and the context allow.
    pub fn embedding_limit(&self) -> u32 {
        self.embedding().max_length.min(self.context())
    }

    /// Tokens of a text behind a prompt that [`Model::embedding_ids_with`] leaves out; 0 where it fits.
    ///
    /// # Errors
    /// As [`Model::embedding_ids_with`].
    pub fn left_out_of(&self, text: &str, prompt: Prompt<'_>) -> Result<usize, RunError> {
        let whole = self.embedding_ids_within(text, prompt, usize::MAX)?.len();
        Ok(whole.saturating_sub(self.embedding_limit() as usize))
    }

    fn embedding_ids_within(
        &self,
        text: &str,
        prompt: Prompt<'_>,
        most: usize,
    ) -> Result<Vec<u32>, RunError> {
        let tokenizer = self.tokenizer()?;
        let config = self.embedding();
        let prompt = config.prompts.text(prompt)?;
        let encode = |most| {
            if prompt.is_empty() {
                return tokenizer.encode_within(text, most, config.truncate_start);
            }
            tokenizer.encode_within(&format!("{prompt}{text}"), most, config.truncate_start)
        };
        let end = config.end.as_deref().and_then(|token| tokenizer.token_to_id(token));
        match end {
            Some(end) if tokenizer.encode("", true)?.is_empty() => {
                let mut ids = encode(most.saturating_sub(1))?;
                ids.push(end);
                Ok(ids)
            }
            _ => Ok(encode(most)?),
        }
    }

    /// Tokens at the beginning of a sequence that belong to a prompt and take no part in pooling.
    fn prompt_tokens(&self, prompt: Prompt<'_>) -> Result<usize, RunError> {
        let text = self.prompts().text(prompt)?;
        if self.pooling().include_prompt || text.is_empty() {
            return Ok(0);
        }
        let ids = self.embedding_ids_with("", prompt)?;
        let tokenizer = self.tokenizer()?;
        let closed = ids.last().is_some_and(|&id| tokenizer.is_special(id));
        Ok(ids.len() - usize::from(closed))
    }

    /// States of the last layer for several sequences, `[T, C]` each. Encoders take segment ids (all zero if
    /// `None`).
    ///
    /// # Errors
    /// Empty or too long sequences, ids out of range, a device that fails.
    pub async fn states(
        self: &Arc<Self>,
        sequences: &[Vec<u32>],
        segments: Option<&[Vec<u32>]>,
        trace: Option<&mut Trace>,
    ) -> Result<Vec<Vec<f32>>, RunError> {
        let longest = sequences.iter().map(Vec::len).max().unwrap_or(0);
        if sequences.is_empty() || sequences.iter().any(Vec::is_empty) {
            return Err(RunError::EmptyPrompt);
        }
        if longest > self.context() as usize {
            return Err(RunError::PromptTooLong { length: longest, context: self.context() });
        }
        if let Some(&id) = sequences.iter().flatten().find(|&&id| id >= self.config().vocab_size) {
            return Err(RunError::TokenId { id, vocab_size: self.config().vocab_size });
        }
        if let Some(segments) = segments {
            let bad = |what, got: usize, want| {
                Err(OpError::Value { op: "embedding of segments", what, got: got as f64, want }.into())
            };
            let types = self.config().type_vocab_size;
            let lengths = |list: &[Vec<u32>]| list.iter().map(Vec::len).collect::<Vec<_>>();
            if lengths(segments) != lengths(sequences) {
                let want = format!("{:?}, one for each token", lengths(sequences));
                return bad("ids", segments.iter().map(Vec::len).sum(), want);
            }
            if let Some(&id) = segments.iter().flatten().find(|&&id| id >= types) {
                return bad("id", id as usize, format!("below {types}, the segments of the model"));
            }
        }
        let states = if let Some(encoder) = self.encoder() {
            let ids: Vec<u32> = match segments {
                Some(segments) => segments.concat(),
                None => vec![0; sequences.iter().map(Vec::len).sum()],
            };
            let chunks: Vec<Chunk<'_>> =
                (0..).zip(sequences).map(|(slot, token_ids)| Chunk { slot, start: 0, token_ids }).collect();
            let batch = Batch::upload(self.gpu(), &chunks)?;
            let segment_ids = Tensor::from_u32(self.gpu(), &ids, &[batch.num_tokens()])?;
            let mut frame = Frame::new(self.gpu());
            let states = encoder.forward(&mut frame, &batch, &segment_ids, trace)?;
            frame.submit()?;
            states
        } else {
            let options = SessionOptions {
                context: Some(longest as u32),
                slots: sequences.len() as u32,
                ..SessionOptions::default()
            };
            let mut session = Session::new(self, options)?;
            let inputs: Vec<Input<'_>> =
                (0..).zip(sequences).map(|(slot, token_ids)| Input { slot, token_ids }).collect();
            session.hidden(&inputs, trace)?
        };
        let values = states.to_f32(self.gpu()).await?;
        let mut rest = values.as_slice();
        let channels = self.config().hidden_size as usize;
        Ok(sequences
            .iter()
            .map(|s| {
                let (states, tail) = rest.split_at(s.len() * channels);
                rest = tail;
                states.to_vec()
            })
            .collect())
    }

    /// `tanh(W h_0 + b)` of the first token's state: BERT's pooler output, `[C]`.
    ///
    /// # Errors
    /// A model without a pooler, and as [`Model::states`].
    pub async fn pooler(
        self: &Arc<Self>,
        ids: &[u32],
        segments: Option<&[u32]>,
    ) -> Result<Vec<f32>, RunError> {
        let Some(pooler) = self.encoder().and_then(|e| e.pooler.as_ref()) else {
            return Err(RunError::NoPooler { model_type: self.config().model_type.clone() });
        };
        let segments = segments.map(|s| vec![s.to_vec()]);
        let states = self.states(&[ids.to_vec()], segments.as_deref(), None).await?;
        let first = &states[0][..self.config().hidden_size as usize];
        let first = Tensor::from_f32(self.gpu(), first, &[1, self.config().hidden_size])?;
        let mut frame = Frame::new(self.gpu());
        // tanh is a soft cap at 1.
        let fused = girih_ops::Linear { act: girih_ops::Act::SoftCap(1.0), ..girih_ops::Linear::default() };
        let pooled = pooler.forward(&mut frame, &first, fused)?;
        frame.submit()?;
        Ok(pooled.to_f32(self.gpu()).await?)
    }

    /// Runs sequences of several lengths, so that the kernels of the usual ones are compiled: what
    /// [`Session::warm_up`] is to generating.
    ///
    /// # Errors
    /// As [`Model::states`].
    pub async fn warm_up_embedding(self: &Arc<Self>) -> Result<(), RunError> {
        let limit = self.context() as usize;
        for length in [1, 2, 8, 16, 17, 32, 64, 128, 256, 512] {
            self.states(&[vec![0; length.min(limit)]], None, None).await?;
            if length >= limit {
                break;
            }
        }
        Ok(())
    }

    /// One vector per sequence, pooled (and normalised) as the checkpoint says. Any number of sequences: they are
    /// run in groups. Sequences of texts are those of [`Model::embedding_ids`].
    ///
    /// # Errors
    /// As [`Model::states`].
    pub async fn embed(self: &Arc<Self>, sequences: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, RunError> {
        self.embed_with(sequences, Prompt::Default).await
    }

    /// As [`Model::embed`] for sequences of [`Model::embedding_ids_with`] with the same prompt: some checkpoints leave its
    /// tokens out of the pooling.
    ///
    /// # Errors
    /// As [`Model::states`]; a prompt that the checkpoint does not have.
    pub async fn embed_with(
        self: &Arc<Self>,
        sequences: &[Vec<u32>],
        prompt: Prompt<'_>,
    ) -> Result<Vec<Vec<f32>>, RunError> {
        let channels = self.config().hidden_size as usize;
        let prompt = self.prompt_tokens(prompt)?;
        let mut vectors = Vec::with_capacity(sequences.len());
        let mut left = sequences;
        while !left.is_empty() {
            let mut longest = 0;
            let fits = left.iter().zip(1..).take_while(|(s, count)| {
                longest = s.len().max(longest);
                longest * count <= EMBED_TOKENS
            });
            let (group, tail) = left.split_at(fits.count().max(1));
            let states = self.states(group, None, None).await?;
            vectors.extend(states.iter().map(|s| self.pooling().apply(s, channels, prompt)));
            left = tail;
        }
        Ok(vectors)
    }
}

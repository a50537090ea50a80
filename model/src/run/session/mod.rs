//! A cache and what runs on it: prefill of ragged batches, decode steps replayed from plans.

mod decode;
mod warm_up;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use girih_ops::kernels::{Counters, PendingRead};
use girih_ops::{Arena, Batch, Chunk, Frame, Gpu, Tensor};

pub use decode::{CANDIDATES, DecodePlan, Tail};

use crate::error::{OutOfMemory, RunError};
use crate::network::experts::now;
use crate::network::layers::{Cache, Trace};
use crate::run::memory::{self, Offer};
use crate::run::model::Model;
use crate::run::options::{PREFILL_TOKENS, SessionOptions};

/// New tokens of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Slot of the sequence.
    pub slot: u32,
    /// Tokens to append.
    pub token_ids: &'a [u32],
}

/// For which rows logits are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// The last token of each sequence: `[S, V]`.
    Last,
    /// Every token: `[T, V]`.
    All,
}

/// Stops what a session generates, from a signal handler, another thread or another task. Clones are one switch.
#[derive(Clone, Debug, Default)]
pub struct Canceller(Arc<AtomicBool>);

impl Canceller {
    /// The generation that runs ends as soon as the device has done what it was given already, also in the middle of
    /// a long prompt. The next one is not affected.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A model with a cache.
#[derive(Debug)]
pub struct Session {
    model: Arc<Model>,
    cache: Cache,
    arena: Arena,
    /// Tokens in the cache, by slot.
    tokens: Vec<Vec<u32>>,
    /// Of a model with states, how many tokens those of each slot have seen: more than there are in the cache, where some were
    /// forgotten or a decode step ran ahead; nobody knows while a pass runs, and after one that failed. States do not go back:
    /// where they have not seen the tokens of the cache, a sequence is computed anew before it goes on.
    seen: Option<Vec<Option<usize>>>,
    plans: Vec<DecodePlan>,
    canceller: Canceller,
}

impl Session {
    /// Allocates a cache.
    ///
    /// # Errors
    /// A context of 0 or beyond the model's, memory that is exhausted.
    pub fn new(model: &Arc<Model>, options: SessionOptions) -> Result<Self, RunError> {
        let limit = model.context();
        let capacity = options.context.unwrap_or(limit);
        if capacity == 0 || capacity > limit {
            return Err(RunError::Context { got: capacity, limit });
        }
        let slots = options.slots.max(1);
        let blocks = &model.decoder()?.blocks;
        let recurrent = blocks.iter().any(|block| block.attention().is_recurrent());
        let asked = memory::Choice::new(None, capacity, Some(options));
        let needs = |choice: &memory::Choice| memory::demand(model.config(), model.weight_bytes(), choice);
        // The weights are there already; they cannot be had in another format.
        let mut offer = Offer::of(model.gpu().caps());
        offer.free = offer.free.map(|free| free.saturating_add(model.weight_bytes()));
        if let Some(refused) = memory::refusal(&asked, false, &offer, needs) {
            return Err(refused.into());
        }
        let cache =
            Cache::alloc(model.gpu(), blocks, slots, capacity, options.f16_cache).map_err(|error| {
                match OutOfMemory::said(&error) {
                    Some(message) => memory::exhausted(&asked, false, message, needs).into(),
                    None => RunError::from(error),
                }
            })?;
        Ok(Self {
            model: model.clone(),
            cache,
            arena: Arena::default(),
            tokens: vec![Vec::new(); slots as usize],
            seen: recurrent.then(|| vec![Some(0); slots as usize]),
            plans: Vec::new(),
            canceller: Canceller::default(),
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        self.model.gpu()
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// What stops a generation on this session.
    pub fn canceller(&self) -> &Canceller {
        &self.canceller
    }

    /// Tokens of a sequence that are in the cache; none in a slot that the cache does not have.
    pub fn tokens(&self, slot: u32) -> &[u32] {
        self.tokens.get(slot as usize).map_or(&[], Vec::as_slice)
    }

    /// Forgets all but the first `len` tokens of a sequence.
    pub fn truncate(&mut self, slot: u32, len: usize) {
        if let Some(tokens) = self.tokens.get_mut(slot as usize)
            && len < tokens.len()
        {
            tokens.truncate(len);
            self.saw(slot, None);
        }
    }

    /// Length above which a sequence takes other rotary frequencies (longrope), those of its first tokens included.
    pub fn rope_switch(&self) -> Option<usize> {
        let blocks = &self.model.decoder().ok()?.blocks;
        blocks.iter().find_map(|block| block.attention().rope()?.switch_len()).map(|n| n as usize)
    }

    /// Counts of what the device made so far.
    pub fn counters(&self) -> Counters {
        self.gpu().counters()
    }

    pub(super) fn check(&self, inputs: &[Input<'_>]) -> Result<(), RunError> {
        let vocab_size = self.model.config().vocab_size;
        for (i, input) in inputs.iter().enumerate() {
            let known = self
                .tokens
                .get(input.slot as usize)
                .ok_or(RunError::Slot { got: input.slot, slots: self.cache.slots() })?;
            if inputs[..i].iter().any(|other| other.slot == input.slot) {
                return Err(RunError::SlotTwice { slot: input.slot });
            }
            if input.token_ids.is_empty() {
                return Err(RunError::EmptyPrompt);
            }
            let length = known.len() + input.token_ids.len();
            if length > self.cache.capacity() as usize {
                return Err(RunError::PromptTooLong { length, context: self.cache.capacity() });
            }
            if let Some(&id) = input.token_ids.iter().find(|&&id| id >= vocab_size) {
                return Err(RunError::TokenId { id, vocab_size });
            }
        }
        Ok(())
    }

    /// Appends tokens of one or several sequences and returns logits: `[S, V]` or `[T, V]`, in the order of the
    /// inputs. Long inputs run in several submissions. With `trace`, the residual stream is kept (one
    /// submission).
    ///
    /// # Errors
    /// Unknown slots, unknown token ids, more tokens than the cache holds, a device that fails; experts that would have to be
    /// waited for, as in a browser.
    pub fn forward(
        &mut self,
        inputs: &[Input<'_>],
        rows: Rows,
        trace: Option<&mut Trace>,
    ) -> Result<Tensor, RunError> {
        now(self.forward_async(inputs, rows, trace))
    }

    /// [`Session::forward`], waiting for experts that are read while it runs. Of a model that has all of them on the GPU it waits
    /// for nothing.
    ///
    /// # Errors
    /// As [`Session::forward`]; experts that cannot be read.
    pub async fn forward_async(
        &mut self,
        inputs: &[Input<'_>],
        rows: Rows,
        trace: Option<&mut Trace>,
    ) -> Result<Tensor, RunError> {
        self.check(inputs)?;
        let total: usize = inputs.iter().map(|i| i.token_ids.len()).sum();
        let mut rest: Vec<Input<'_>> = inputs.to_vec();
        if rows == Rows::Last && trace.is_none() && total > PREFILL_TOKENS {
            // All but the last piece only fill the cache.
            for input in &mut rest {
                while self.fill(input).await? {}
            }
        }
        let (mut frame, logits) = self.record_pass(&rest, rows, trace)?;
        self.run(&mut frame, rest.iter().map(|input| input.slot)).await?;
        self.append(&rest);
        Ok(logits)
    }

    /// Runs what was recorded of the sequences in some slots, in segments where experts are brought in between.
    pub(in crate::run) async fn run(
        &mut self,
        frame: &mut Frame,
        slots: impl IntoIterator<Item = u32>,
    ) -> Result<(), RunError> {
        for slot in slots {
            self.saw(slot, None);
        }
        match self.model.experts().filter(|_| !frame.breaks().is_empty()) {
            None => frame.submit()?,
            Some(experts) => {
                let (plan, breaks) = frame.segments()?;
                experts.run(self.gpu(), &plan, &breaks).await?;
            }
        }
        Ok(())
    }

    /// Appends the first piece of an input that is longer than one submission takes, and takes it from the input.
    /// False, and nothing, where the rest is one piece: it is the one that logits are computed of.
    async fn fill(&mut self, input: &mut Input<'_>) -> Result<bool, RunError> {
        if input.token_ids.len() <= PREFILL_TOKENS {
            return Ok(false);
        }
        let size = self.piece(self.tokens(input.slot).len(), input.token_ids.len(), PREFILL_TOKENS);
        let (piece, tail) = input.token_ids.split_at(size);
        if tail.is_empty() {
            return Ok(false);
        }
        let piece = [Input { token_ids: piece, ..*input }];
        let (mut frame, batch) = self.start(&piece)?;
        self.model.decoder()?.hidden(&mut frame, &batch, &self.cache, None)?;
        self.run(&mut frame, [input.slot]).await?;
        self.append(&piece);
        input.token_ids = tail;
        Ok(true)
    }

    /// As [`Session::forward`] with [`Rows::Last`] for one sequence, but no more than two pieces of a long input wait
    /// on the device, so that it stays usable for others and a [`Canceller`] is heeded. `None`: it was cancelled, and
    /// the cache holds the beginning of the input.
    ///
    /// # Errors
    /// As [`Session::forward`].
    pub async fn prefill(&mut self, mut input: Input<'_>) -> Result<Option<Tensor>, RunError> {
        self.check(&[input])?;
        let gpu = self.gpu().clone();
        let mut running = None;
        while self.fill(&mut input).await? {
            // Read after the piece before this one: it is done when the bytes are here.
            let done = gpu.read_later(&gpu.dummy()?);
            if let Some(before) = running.replace(done) {
                PendingRead::wait(before).await?;
            }
            if self.canceller.is_cancelled() {
                return Ok(None);
            }
        }
        self.forward_async(&[input], Rows::Last, None).await.map(Some)
    }

    /// Records what [`Session::forward`] runs, in one piece, and returns it with the logits that it will write:
    /// for looking at what a device would run, or for running it with the CPU twins of some kernels
    /// ([`Frame::run_twins`]) to find the one that is wrong. The inputs count as cached from now on: run the
    /// recording before anything else on this session.
    ///
    /// # Errors
    /// As [`Session::forward`], a failing device apart.
    pub fn record(
        &mut self,
        inputs: &[Input<'_>],
        rows: Rows,
        trace: Option<&mut Trace>,
    ) -> Result<(Frame, Tensor), RunError> {
        self.check(inputs)?;
        let recorded = self.record_pass(inputs, rows, trace)?;
        self.append(inputs);
        Ok(recorded)
    }

    /// Appends tokens of one sequence and hands the logits of each to `each`, in pieces `[rows, V]` that are small
    /// whatever the length: the first piece is of the first tokens.
    ///
    /// # Errors
    /// As [`Session::forward`], and those of `each`.
    pub async fn all_logits(
        &mut self,
        mut input: Input<'_>,
        mut each: impl FnMut(&[f32]) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        self.check(&[input])?;
        while !input.token_ids.is_empty() {
            each(&self.next_logits(&mut input).await?)?;
        }
        Ok(())
    }

    /// Appends some of the tokens of a sequence, takes them from the input and returns their logits `[rows, V]`.
    pub(crate) async fn next_logits(&mut self, input: &mut Input<'_>) -> Result<Vec<f32>, RunError> {
        const LOGITS: usize = (64 << 20) / 4;
        let rows = (LOGITS / self.model.config().vocab_size.max(1) as usize).clamp(1, PREFILL_TOKENS);
        let size = self.piece(self.tokens(input.slot).len(), input.token_ids.len(), rows);
        let (piece, tail) = input.token_ids.split_at(size);
        let logits = self.forward_async(&[Input { token_ids: piece, ..*input }], Rows::All, None).await?;
        input.token_ids = tail;
        Ok(logits.to_f32(self.gpu()).await?)
    }

    /// Length of the next piece of `left` tokens that follow `start` cached ones: `usual`. But the first piece of a
    /// sequence that ends up beyond [`Session::rope_switch`] crosses it: earlier pieces would be rotated as a short
    /// sequence is.
    fn piece(&self, start: usize, left: usize, usual: usize) -> usize {
        let crossing = self.rope_switch().filter(|switch| (start..start + left).contains(switch));
        crossing.map_or(usual, |switch| usual.max(switch + 1 - start)).min(left)
    }

    /// Appends tokens and returns the normalised residual stream `[T, C]`: what embedding models pool.
    ///
    /// # Errors
    /// As [`Session::forward`].
    pub fn hidden(&mut self, inputs: &[Input<'_>], trace: Option<&mut Trace>) -> Result<Tensor, RunError> {
        self.check(inputs)?;
        let (mut frame, batch) = self.start(inputs)?;
        let decoder = self.model.decoder()?;
        let x = decoder.hidden(&mut frame, &batch, &self.cache, trace)?;
        let x = decoder.norm.forward(&mut frame, &x)?;
        now(self.run(&mut frame, inputs.iter().map(|input| input.slot)))?;
        self.append(inputs);
        Ok(x)
    }

    pub(super) fn start(&self, inputs: &[Input<'_>]) -> Result<(Frame, Batch), RunError> {
        let chunks: Vec<Chunk<'_>> = inputs
            .iter()
            .map(|i| Chunk { slot: i.slot, start: self.tokens(i.slot).len() as u32, token_ids: i.token_ids })
            .collect();
        let batch = Batch::upload(self.gpu(), &chunks)?;
        let mut frame = Frame::with_arena(self.gpu(), self.arena.clone());
        for input in inputs {
            self.catch_up(&mut frame, input.slot)?;
        }
        Ok((frame, batch))
    }

    /// Whether the states of a slot have seen other tokens than the cache holds.
    fn is_ahead(&self, slot: u32) -> bool {
        let seen = self.seen.as_ref().and_then(|seen| seen.get(slot as usize));
        seen.is_some_and(|&seen| seen != Some(self.tokens(slot).len()))
    }

    /// Records the tokens of a sequence once more, from the first on, where its states are ahead of the cache.
    pub(super) fn catch_up(&self, frame: &mut Frame, slot: u32) -> Result<(), RunError> {
        if !self.is_ahead(slot) {
            return Ok(());
        }
        for (i, token_ids) in self.tokens(slot).chunks(PREFILL_TOKENS).enumerate() {
            let start = (i * PREFILL_TOKENS) as u32;
            let batch = Batch::upload(self.gpu(), &[Chunk { slot, start, token_ids }])?;
            self.model.decoder()?.hidden(frame, &batch, &self.cache, None)?;
        }
        Ok(())
    }

    pub(super) fn append(&mut self, inputs: &[Input<'_>]) {
        for input in inputs {
            if let Some(tokens) = self.tokens.get_mut(input.slot as usize) {
                tokens.extend_from_slice(input.token_ids);
                let now = tokens.len();
                self.saw(input.slot, Some(now));
            }
        }
    }

    /// Notes how many tokens the states of a slot have seen. What was noted before.
    pub(super) fn saw(&mut self, slot: u32, count: Option<usize>) -> Option<usize> {
        let seen = self.seen.as_mut()?.get_mut(slot as usize)?;
        std::mem::replace(seen, count)
    }

    fn record_pass(
        &self,
        inputs: &[Input<'_>],
        rows: Rows,
        trace: Option<&mut Trace>,
    ) -> Result<(Frame, Tensor), RunError> {
        let (mut frame, batch) = self.start(inputs)?;
        let decoder = self.model.decoder()?;
        let mut x = decoder.hidden(&mut frame, &batch, &self.cache, trace)?; // [T, C]
        if rows == Rows::Last && inputs.len() as u32 != batch.num_tokens() {
            let mut end = 0;
            let last: Vec<u32> = inputs
                .iter()
                .map(|i| {
                    end += i.token_ids.len() as u32;
                    end - 1
                })
                .collect();
            let rows = Tensor::from_u32(self.gpu(), &last, &[last.len() as u32])?;
            x = girih_ops::gather_rows(&mut frame, &x, &rows)?; // [S, C]
        }
        let logits = decoder.logits(&mut frame, &x)?; // [T, V] or [S, V]
        Ok((frame, logits))
    }

    /// Tokens that a sequence can still take.
    pub fn room(&self, slot: u32) -> usize {
        (self.cache.capacity() as usize).saturating_sub(self.tokens(slot).len())
    }
}

//! Decode steps: recorded once, replayed as often as tokens are wanted.

use girih_ops::{Arena, Batch, BreakPoint, Frame, Plan, Seq, Tensor};

use super::Session;
use crate::error::RunError;
use crate::network::experts::now;

/// Candidates that a decode step leaves for the host to sample from.
pub const CANDIDATES: u32 = 64;

/// What a decode step ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// The best token, fed back on the GPU: any number of steps in one submission.
    Greedy,
    /// The [`CANDIDATES`] best logits and their ids.
    Candidates,
    /// All logits.
    Logits,
}

/// One decode step, recorded once.
#[derive(Debug)]
pub struct DecodePlan {
    pub(super) tail: Tail,
    plan: Plan,
    /// Where the host takes part in a step.
    breaks: Vec<BreakPoint>,
    batch: Batch,
    outputs: Vec<Tensor>,
    /// Steps that the cache has room for since [`Session::seek`].
    room: u32,
    /// Slot that it was sought to.
    slot: u32,
    _arena: Arena,
}

impl DecodePlan {
    /// The dispatches of a step.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Results: `[1 + capacity]` counter and tokens; or values and ids; or logits.
    pub fn outputs(&self) -> &[Tensor] {
        &self.outputs
    }
}

impl Session {
    /// The recorded decode step with a given tail; recorded on first use.
    ///
    /// # Errors
    /// As [`Session::forward`].
    pub fn decode_plan(&mut self, tail: Tail) -> Result<&DecodePlan, RunError> {
        self.plan_mut(tail).map(|plan| &*plan)
    }

    fn plan_mut(&mut self, tail: Tail) -> Result<&mut DecodePlan, RunError> {
        let known = self.plans.iter().position(|p| p.tail == tail);
        let i = known.unwrap_or(self.plans.len());
        if known.is_none() {
            let plan = self.record_decode(tail)?;
            self.plans.push(plan);
        }
        Ok(&mut self.plans[i])
    }

    fn record_decode(&self, tail: Tail) -> Result<DecodePlan, RunError> {
        let arena = Arena::default();
        let (mut frame, batch, outputs) = self.record_step_in(tail, &arena)?;
        let (plan, breaks) = frame.segments()?;
        Ok(DecodePlan { tail, plan, breaks, batch, outputs, room: 0, slot: 0, _arena: arena })
    }

    /// Records what a [`Session::decode_plan`] holds without compiling anything: for looking at what a device
    /// would run.
    ///
    /// # Errors
    /// As [`Session::record`].
    pub fn record_step(&self, tail: Tail) -> Result<Frame, RunError> {
        Ok(self.record_step_in(tail, &Arena::default())?.0)
    }

    fn record_step_in(&self, tail: Tail, arena: &Arena) -> Result<(Frame, Batch, Vec<Tensor>), RunError> {
        let gpu = self.gpu();
        let state = |len: usize, shape: &[u32]| Tensor::from_u32(gpu, &vec![0; len], shape);
        let batch = Batch {
            token_ids: state(1, &[1])?,
            positions: state(1, &[1])?,
            seq_of_token: state(1, &[1])?,
            seqs: state(4, &[1, 4])?,
            max_q_len: 1,
            max_kv_len: self.cache.capacity(),
        };
        let mut frame = Frame::with_arena(gpu, arena.clone());
        let decoder = self.model.decoder()?;
        let x = decoder.hidden(&mut frame, &batch, &self.cache, None)?; // [1, C]
        let logits = decoder.logits(&mut frame, &x)?; // [1, V]
        let outputs = match tail {
            Tail::Greedy => {
                let capacity = self.cache.capacity() as usize;
                let out = state(1 + capacity, &[1, 1 + capacity as u32])?;
                girih_ops::greedy_step(&mut frame, &logits, &batch, &out)?;
                vec![out]
            }
            Tail::Candidates => {
                let k = CANDIDATES.min(self.model.config().vocab_size);
                let (values, ids) = girih_ops::top_k(&mut frame, &logits, k)?;
                vec![values, ids]
            }
            Tail::Logits => vec![logits],
        };
        Ok((frame, batch, outputs))
    }

    /// Sets the step state of a plan: `token` is the next input of the sequence in `slot`, whose cache holds
    /// `self.tokens(slot)`.
    ///
    /// # Errors
    /// An unknown slot or token id; as [`Session::decode_plan`].
    pub fn seek(&mut self, tail: Tail, slot: u32, token: u32) -> Result<(), RunError> {
        let slots = self.cache.slots();
        let known = self.tokens.get(slot as usize).ok_or(RunError::Slot { got: slot, slots })?;
        let vocab_size = self.model.config().vocab_size;
        if token >= vocab_size {
            return Err(RunError::TokenId { id: token, vocab_size });
        }
        let position = known.len() as u32;
        if self.is_ahead(slot) {
            let mut frame = Frame::with_arena(self.gpu(), self.arena.clone());
            self.catch_up(&mut frame, slot)?;
            now(self.run(&mut frame, [slot]))?;
            self.saw(slot, Some(position as usize));
        }
        let room = self.cache.capacity().saturating_sub(position);
        let gpu = self.gpu().clone();
        let plan = self.plan_mut(tail)?;
        (plan.room, plan.slot) = (room, slot);
        gpu.write(plan.batch.token_ids.buffer(), 0, bytemuck::bytes_of(&token));
        gpu.write(plan.batch.positions.buffer(), 0, bytemuck::bytes_of(&position));
        let seq = Seq { q_base: 0, q_len: 1, kv_len: position + 1, slot };
        gpu.write(plan.batch.seqs.buffer(), 0, bytemuck::bytes_of(&seq));
        if tail == Tail::Greedy {
            gpu.write(plan.outputs[0].buffer(), 0, bytemuck::bytes_of(&0u32));
        }
        Ok(())
    }

    /// Runs `steps` decode steps in one submission. The caller has set the state with [`Session::seek`] and tells
    /// the session what was appended with [`Session::note`].
    ///
    /// # Errors
    /// More steps than the cache has room for; as [`Session::decode_plan`]; experts that would have to be waited for, as in a
    /// browser.
    pub fn step(&mut self, tail: Tail, steps: u32) -> Result<(), RunError> {
        now(self.step_async(tail, steps))
    }

    /// [`Session::step`], waiting for experts that are read while a step runs. Of a model that has all of them on the GPU it waits
    /// for nothing.
    ///
    /// # Errors
    /// As [`Session::step`]; experts that cannot be read.
    pub async fn step_async(&mut self, tail: Tail, steps: u32) -> Result<(), RunError> {
        let gpu = self.gpu().clone();
        let experts = self.model.experts().cloned();
        let context = self.cache.capacity();
        let plan = self.plan_mut(tail)?;
        let Some(room) = plan.room.checked_sub(steps) else {
            let length = (context - plan.room) as usize + steps as usize;
            return Err(RunError::PromptTooLong { length, context });
        };
        plan.room = room;
        let slot = plan.slot;
        let seen = self.saw(slot, None);
        let plan = self.plan_mut(tail)?;
        match experts.filter(|_| !plan.breaks.is_empty()) {
            None => gpu.replay(&plan.plan, steps),
            Some(experts) => {
                for _ in 0..steps {
                    experts.run(&gpu, &plan.plan, &plan.breaks).await?;
                }
            }
        }
        self.saw(slot, seen.map(|seen| seen + steps as usize));
        Ok(())
    }

    /// Records that a decode step has appended a token to a sequence.
    pub fn note(&mut self, slot: u32, token: u32) {
        if let Some(tokens) = self.tokens.get_mut(slot as usize) {
            tokens.push(token);
        }
    }
}

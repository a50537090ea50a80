//! Compiling beforehand what prompts and decode steps need.

use std::collections::HashSet;

use girih_ops::Frame;
use girih_ops::kernels::{Choice, KernelSpec};

use super::{Input, PREFILL_TOKENS, Rows, Session, Tail};
use crate::error::RunError;

impl Session {
    /// Compiles what prompts of any length and decoding may need, and runs it once, since some drivers compile when a
    /// pipeline is used first. Nothing is compiled afterwards by pieces of up to 512 tokens, which is all of them but one:
    /// the piece that crosses [`Session::rope_switch`] is as long as that, and a device may take other tiles for it.
    /// `progress` is told how many of how many pipelines are ready. Forgets what is cached.
    ///
    /// # Errors
    /// Shaders that the device refuses, memory that is exhausted.
    pub async fn warm_up(&mut self, mut progress: impl FnMut(usize, usize)) -> Result<(), RunError> {
        let slots = self.cache.slots();
        for slot in 0..slots {
            self.truncate(slot, 0);
        }
        let gpu = self.gpu().clone();
        let capacity = self.cache.capacity() as usize;
        let longest = capacity.min(PREFILL_TOKENS);
        let mut seen = HashSet::new();
        let mut wanted: Vec<(&'static KernelSpec, Choice)> = Vec::new();
        let mut add = |frame: &Frame| {
            for d in frame.recording().dispatches() {
                if seen.insert(d.choice.clone()) {
                    wanted.push((d.spec, d.choice.clone()));
                }
            }
        };
        let ids = vec![0; longest];
        // Kernels are chosen by the number of rows, in steps of tiles; all small numbers are tried.
        let lengths = (1..=longest).filter(|&n| n <= 32 || n % 16 <= 1 || n == longest);
        for (length, start) in lengths.map(|n| (n, 0)).chain([(1, capacity - 1)]) {
            let scratch = std::mem::take(&mut self.arena);
            self.tokens[0] = vec![0; start];
            let recorded =
                self.record_pass(&[Input { slot: 0, token_ids: &ids[..length] }], Rows::Last, None);
            self.arena = scratch;
            self.truncate(0, 0);
            add(&recorded?.0);
        }
        let tails = [Tail::Greedy, Tail::Candidates, Tail::Logits];
        for tail in tails {
            add(&self.record_step(tail)?);
        }
        let total = wanted.len();
        for (i, (spec, choice)) in wanted.iter().enumerate() {
            progress(i, total);
            if gpu.compile(spec, choice)? {
                // A browser compiles behind our back: an answer from its queue says that it is done.
                gpu.read(&gpu.dummy()?).await?;
            }
        }
        for length in [1, 8.min(longest), longest.min(64)] {
            self.forward_async(&[Input { slot: 0, token_ids: &ids[..length] }], Rows::Last, None).await?;
            self.truncate(0, 0);
        }
        for tail in tails {
            self.seek(tail, 0, 0)?;
            self.step_async(tail, 1).await?;
        }
        gpu.read(&gpu.dummy()?).await?;
        progress(total, total);
        gpu.check()?;
        Ok(())
    }
}

//! What linear layers are given: the data that quantisers calibrate with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use girih_ops::{Batch, Chunk, Frame, Tensor};

use crate::error::RunError;
use crate::network::experts::now;
use crate::run::model::Model;
use crate::run::options::SessionOptions;
use crate::run::session::{Input, Session};

impl Session {
    /// Appends tokens and returns what the linear layers that `names` name (by the first of their
    /// [modules](crate::network::layers::Linear::modules)) were given: `[T, K]` each, for calibrating quantisers.
    ///
    /// # Errors
    /// As [`Session::forward`].
    pub fn linear_inputs(
        &mut self,
        inputs: &[Input<'_>],
        names: BTreeSet<String>,
    ) -> Result<BTreeMap<String, Tensor>, RunError> {
        self.check(inputs)?;
        let (mut frame, batch) = self.start(inputs)?;
        frame.watch(names);
        self.model().decoder()?.hidden(&mut frame, &batch, self.cache(), None)?;
        now(self.run(&mut frame, inputs.iter().map(|input| input.slot)))?;
        self.append(inputs);
        Ok(frame.take_notes())
    }
}

impl Model {
    /// What the linear layers that `names` name (by the first of their [modules](crate::network::layers::Linear::modules)) are
    /// given for a sequence: `[T, K]` each, for calibrating quantisers.
    ///
    /// # Errors
    /// As [`Model::states`].
    pub fn linear_inputs(
        self: &Arc<Self>,
        token_ids: &[u32],
        names: BTreeSet<String>,
    ) -> Result<BTreeMap<String, Tensor>, RunError> {
        let Some(encoder) = self.encoder() else {
            let context = Some(token_ids.len() as u32);
            let mut session = Session::new(self, SessionOptions { context, ..SessionOptions::default() })?;
            return session.linear_inputs(&[Input { slot: 0, token_ids }], names);
        };
        if token_ids.len() > self.context() as usize {
            return Err(RunError::PromptTooLong { length: token_ids.len(), context: self.context() });
        }
        let batch = Batch::upload(self.gpu(), &[Chunk { slot: 0, start: 0, token_ids }])?;
        let segment_ids = Tensor::from_u32(self.gpu(), &vec![0; token_ids.len()], &[batch.num_tokens()])?;
        let mut frame = Frame::new(self.gpu());
        frame.watch(names);
        encoder.forward(&mut frame, &batch, &segment_ids, None)?;
        frame.submit()?;
        Ok(frame.take_notes())
    }
}

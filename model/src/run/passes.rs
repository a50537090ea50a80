//! Passes of a model that are recorded to be looked at: what would run for a prompt of some length, and for a step.

use std::sync::Arc;

use girih_ops::{Batch, Chunk, Frame, Gpu, Tensor};
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use crate::checkpoint::source::ByteSource;
use crate::error::{LoadError, RunError};
use crate::run::model::Model;
use crate::run::options::{LoadOptions, SessionOptions};
use crate::run::session::{Input, Rows, Session, Tail};

impl Model {
    /// The model of a checkpoint on a handle without memory: its passes can be recorded and not run. Headers and vectors
    /// are read, no matrices, and nothing is placed on the device.
    ///
    /// # Errors
    /// As [`Model::load`], memory apart.
    pub async fn load_recording(
        gpu: &Gpu,
        source: &Arc<dyn ByteSource>,
        options: LoadOptions,
    ) -> Result<Arc<Self>, LoadError> {
        // Whatever there is to say is said when the model is loaded.
        let recording = gpu.recording_only();
        let load = Self::load(&recording, source.clone(), options, |_| ());
        load.with_subscriber(NoSubscriber::default()).await
    }
}

/// Records passes, each as from an empty cache. Nothing is run.
#[derive(Debug)]
pub struct Passes {
    model: Arc<Model>,
    /// None of an encoder.
    session: Option<Session>,
}

impl Passes {
    /// Opens a session on a model that is no encoder.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn new(model: &Arc<Model>, options: SessionOptions) -> Result<Self, RunError> {
        let session = if model.encoder().is_some() { None } else { Some(Session::new(model, options)?) };
        Ok(Self { model: model.clone(), session })
    }

    /// Tokens of the longest prompt.
    pub fn longest(&self) -> u32 {
        self.session.as_ref().map_or(self.model.context(), |session| session.cache().capacity())
    }

    /// The pass over a prompt: logits of its last token, or the states of an encoder.
    ///
    /// # Errors
    /// As [`Session::record`].
    pub fn prompt(&mut self, length: u32) -> Result<Frame, RunError> {
        let ids = vec![0; length as usize];
        if let Some(session) = &mut self.session {
            let (frame, _) = session.record(&[Input { slot: 0, token_ids: &ids }], Rows::Last, None)?;
            session.truncate(0, 0);
            return Ok(frame);
        }
        let gpu = self.model.gpu();
        let mut frame = Frame::new(gpu);
        if let Some(encoder) = self.model.encoder() {
            let batch = Batch::upload(gpu, &[Chunk { slot: 0, start: 0, token_ids: &ids }])?;
            let segment_ids = Tensor::from_u32(gpu, &ids, &[batch.num_tokens()])?;
            encoder.forward(&mut frame, &batch, &segment_ids, None)?;
        }
        Ok(frame)
    }

    /// A decode step; `None` of an encoder.
    ///
    /// # Errors
    /// As [`Session::record_step`].
    pub fn step(&self, tail: Tail) -> Result<Option<Frame>, RunError> {
        self.session.as_ref().map(|session| session.record_step(tail)).transpose()
    }
}

//! What a model will run on a device, found before its weights are there: it is put together on a handle without
//! memory, and what it records is looked at.

use std::sync::Arc;

use girih_ops::kernels::selftest::{self, Needs, Report, Verdicts};
use girih_ops::{Batch, Chunk, Frame, Gpu, Tensor};
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use crate::checkpoint::source::{ByteSource, Sendable};
use crate::error::{LoadError, RunError};
use crate::run::model::{Model, Progress};
use crate::run::options::{LoadOptions, SessionOptions};
use crate::run::session::{Input, Rows, Session, Tail};

/// Numbers of rows at which kernels change.
const LENGTHS: [usize; 12] = [1, 2, 4, 5, 8, 9, 17, 33, 65, 129, 257, 512];

impl Model {
    /// The kernels that the model of a checkpoint will use on a device, with what they read: formats of weights, and
    /// keys and values as `options.session` has them (f32 if there is none). Headers and vectors are read, no matrices, and nothing is placed on the
    /// device.
    ///
    /// # Errors
    /// As [`Model::load`] and [`Session::new`], memory apart; [`KernelError::Unavailable`] where everything that could
    /// do the work is on the block list.
    ///
    /// [`KernelError::Unavailable`]: girih_ops::KernelError::Unavailable
    pub async fn needs(
        gpu: &Gpu,
        source: &Arc<dyn ByteSource>,
        options: LoadOptions,
    ) -> Result<Needs, LoadError> {
        // Whatever there is to say is said when the model is loaded.
        let recording = gpu.recording_only();
        let load = Self::load(&recording, source.clone(), options, |_| ());
        let model = load.with_subscriber(NoSubscriber::default()).await?;
        let mut needs = Needs::default();
        let recorded = if model.encoder().is_some() {
            record_encoder(&model, &mut needs)
        } else {
            record_decoder(&model, options.session.unwrap_or_default(), &mut needs)
        };
        recorded.map_err(Box::new)?;
        Ok(needs)
    }

    /// Loads a checkpoint on a device of which the kernels that it will use are tested first. What fails is blocked for
    /// this model, which uses another variant in its place. `verdicts` holds what is known of the device, and what
    /// was found: another model tests only what is new.
    ///
    /// # Errors
    /// As [`Model::needs`], and as [`Model::load`].
    pub async fn load_tested(
        gpu: &Gpu,
        source: Arc<dyn ByteSource>,
        options: LoadOptions,
        verdicts: &mut Verdicts,
        progress: impl FnMut(Progress) + Sendable + 'static,
    ) -> Result<(Arc<Self>, Report), LoadError> {
        let (gpu, report) = Self::test(gpu, &source, options, verdicts, |_| ()).await?;
        Ok((Self::load(&gpu, source, options, progress).await?, report))
    }

    /// Tests what a model will use; the handle that is returned has what failed on its block list. `testing` is told of
    /// how many launches there are to make, if any.
    ///
    /// # Errors
    /// As [`Model::needs`].
    pub async fn test(
        gpu: &Gpu,
        source: &Arc<dyn ByteSource>,
        options: LoadOptions,
        verdicts: &mut Verdicts,
        mut testing: impl FnMut(usize),
    ) -> Result<(Gpu, Report), LoadError> {
        let mut gpu = verdicts.block(gpu);
        let mut report = Report::default();
        loop {
            let needs = Self::needs(&gpu, source, options).await?;
            let unknown = needs.unknown(verdicts);
            if unknown > 0 {
                testing(unknown);
            }
            let found = selftest::test(&gpu, &needs, verdicts).await;
            let is_final = found.blocked.iter().all(|key| verdicts.knows(key));
            let failed = !found.blocked.is_empty();
            report.extend(found);
            gpu = verdicts.block(&gpu);
            // What takes the place of a failed variant is tested as well.
            if !failed || !is_final {
                gpu.check()?;
                return Ok((gpu, report));
            }
        }
    }
}

fn record_decoder(model: &Arc<Model>, options: SessionOptions, needs: &mut Needs) -> Result<(), RunError> {
    let mut session = Session::new(model, options)?;
    let longest = (session.cache().capacity() as usize).min(LENGTHS[LENGTHS.len() - 1]);
    let ids = vec![0; longest];
    for length in LENGTHS.into_iter().filter(|&n| n < longest).chain([longest]) {
        let input = Input { slot: 0, token_ids: &ids[..length] };
        let (frame, _) = session.record(&[input], Rows::Last, None)?;
        session.truncate(0, 0);
        needs.add(frame.recording().dispatches());
    }
    for tail in [Tail::Greedy, Tail::Candidates, Tail::Logits] {
        needs.add(session.record_step(tail)?.recording().dispatches());
    }
    Ok(())
}

fn record_encoder(model: &Arc<Model>, needs: &mut Needs) -> Result<(), RunError> {
    let Some(encoder) = model.encoder() else { return Ok(()) };
    let longest = (model.context() as usize).min(LENGTHS[LENGTHS.len() - 1]);
    let ids = vec![0; longest];
    for length in LENGTHS.into_iter().filter(|&n| n < longest).chain([longest]) {
        let batch = Batch::upload(model.gpu(), &[Chunk { slot: 0, start: 0, token_ids: &ids[..length] }])?;
        let segment_ids = Tensor::from_u32(model.gpu(), &ids[..length], &[batch.num_tokens()])?;
        let mut frame = Frame::new(model.gpu());
        encoder.forward(&mut frame, &batch, &segment_ids, None)?;
        needs.add(frame.recording().dispatches());
    }
    Ok(())
}

//! What a model will run on a device, found before its weights are there: it is put together on a handle without
//! memory, and what it records is looked at.

use std::sync::Arc;

use girih_ops::Gpu;
use girih_ops::kernels::selftest::{self, Needs, Report, Verdicts};

use crate::checkpoint::source::{ByteSource, Sendable};
use crate::error::{LoadError, RunError};
use crate::run::model::{Model, Progress};
use crate::run::options::LoadOptions;
use crate::run::passes::Passes;
use crate::run::session::Tail;

/// Numbers of rows at which kernels change.
const LENGTHS: [u32; 12] = [1, 2, 4, 5, 8, 9, 17, 33, 65, 129, 257, 512];

impl Model {
    /// The kernels that the model of a checkpoint will use on a device, with what they read: formats of weights, and
    /// keys and values as `options.session` has them (f32 if there is none). Headers and vectors are read, no matrices, and nothing is placed on the
    /// device.
    ///
    /// # Errors
    /// As [`Model::load`] and [`Session::new`](crate::Session::new), memory apart; [`KernelError::Unavailable`] where everything that could
    /// do the work is on the block list.
    ///
    /// [`KernelError::Unavailable`]: girih_ops::KernelError::Unavailable
    pub async fn needs(
        gpu: &Gpu,
        source: &Arc<dyn ByteSource>,
        options: LoadOptions,
    ) -> Result<Needs, LoadError> {
        let model = Self::load_recording(gpu, source, options).await?;
        let mut needs = Needs::default();
        let passes = Passes::new(&model, options.session.unwrap_or_default());
        passes.and_then(|mut passes| record(&mut passes, &mut needs)).map_err(Box::new)?;
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

fn record(passes: &mut Passes, needs: &mut Needs) -> Result<(), RunError> {
    let longest = passes.longest().min(LENGTHS[LENGTHS.len() - 1]);
    for length in LENGTHS.into_iter().filter(|&n| n < longest).chain([longest]) {
        needs.add(passes.prompt(length)?.recording().dispatches());
    }
    for tail in [Tail::Greedy, Tail::Candidates, Tail::Logits] {
        if let Some(frame) = passes.step(tail)? {
            needs.add(frame.recording().dispatches());
        }
    }
    Ok(())
}

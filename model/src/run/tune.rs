//! Which shapes the variants of kernels are measured at: those of a model's decode step, and of prompts of usual lengths.

use std::sync::Arc;

use girih_ops::kernels::tune::{Shape, shapes};

use crate::error::RunError;
use crate::run::model::Model;
use crate::run::options::SessionOptions;
use crate::run::passes::Passes;
use crate::run::session::Tail;

/// Lengths of prompts, those that take longest first: winners are kept for powers of two.
const LENGTHS: [u32; 9] = [512, 128, 32, 8, 256, 64, 16, 4, 2];

/// Shapes that a model's passes have on its device and for which there is more than one variant, those of a decode step
/// first. A session of at most 512 tokens is opened for it; of a model that was loaded by [`Model::load_recording`] it
/// takes no memory.
///
/// # Errors
/// As [`Session::new`](crate::Session::new) and [`Session::record`](crate::Session::record).
pub fn tunable(model: &Arc<Model>, options: SessionOptions) -> Result<Vec<Shape>, RunError> {
    let context = options.context.unwrap_or(model.context()).min(LENGTHS[0]);
    let mut passes = Passes::new(model, SessionOptions { context: Some(context), ..options })?;
    let mut frames = Vec::new();
    for tail in [Tail::Greedy, Tail::Candidates] {
        frames.extend(passes.step(tail)?);
    }
    for length in LENGTHS.into_iter().filter(|&n| n <= context) {
        frames.push(passes.prompt(length)?);
    }
    let dispatches = frames.iter().flat_map(|frame| frame.recording().dispatches());
    Ok(shapes(model.gpu().caps(), dispatches))
}

//! What calibration keeps of the inputs of matrices while the model runs.

use std::ops::Range;

use girih_model::RunError;
use girih_model::network::layers::ExpertMatrix;
use girih_ops::moe::{NONE, decode_routes};
use girih_quantize::InputStats;
use indicatif::ProgressBar;

use super::Job;
use super::steps::{EXPERT_ROWS, ExpertStep, SAMPLE_ROWS, Step};
use crate::error::Failure;

/// Statistics of the input of a step.
pub struct Statistics<'a> {
    step: &'a Step,
    /// Of all rows: of the input of a linear layer, or of all rows that went to any expert.
    pub all: Option<InputStats>,
    /// Experts that have statistics of their own.
    pub experts: Range<u32>,
    /// Those: the rows that went to the expert.
    pub each: Vec<InputStats>,
}

impl<'a> Statistics<'a> {
    /// Nothing seen yet; `experts` is a range of those of the step. `all`: with those of all rows.
    pub fn new(step: &'a Step, all: bool, experts: Range<u32>, job: &Job<'_>) -> Self {
        let (k, moments, seed) = (step.k() as usize, job.scheme.needs_hessian(), job.seed);
        // A plan for all experts does without second moments.
        let (all, experts) = match step {
            Step::Linear(_) => (all.then(|| InputStats::new(k, moments, SAMPLE_ROWS, seed)), 0..0),
            Step::Experts(_) => (all.then(|| InputStats::new(k, false, SAMPLE_ROWS, seed)), experts),
        };
        let each = experts.clone().map(|_| InputStats::new(k, moments, EXPERT_ROWS, seed)).collect();
        Self { step, all, experts, each }
    }

    /// Adds the rows of one pass: of experts those that `slots`, experts of the choices of each token, send there.
    fn add(&mut self, rows: &[f32], slots: &[u32]) {
        let Step::Experts(step) = self.step else {
            self.all.iter_mut().for_each(|stats| stats.add(rows));
            return;
        };
        let gathered = Gathered::new(step, rows, slots);
        if let Some(stats) = &mut self.all {
            stats.add(&gathered.all());
        }
        for (expert, stats) in self.experts.clone().zip(&mut self.each) {
            let rows = gathered.of(expert);
            if !rows.is_empty() {
                stats.add(&rows);
            }
        }
    }
}

/// Rows of a pass by the experts that they went to.
struct Gathered<'a> {
    rows: &'a [f32],
    k: usize,
    /// Choices of a token that share a row: all of them before gate and up, one before down.
    share: usize,
    slots: &'a [u32],
}

impl<'a> Gathered<'a> {
    fn new(step: &ExpertStep, rows: &'a [f32], slots: &'a [u32]) -> Self {
        let k = step.shape[2] as usize;
        let share = match step.of {
            ExpertMatrix::GateUp => slots.len().checked_div(rows.len() / k.max(1)).unwrap_or(1),
            ExpertMatrix::Down => 1,
        };
        Self { rows, k, share: share.max(1), slots }
    }

    /// Rows for which some choice is wanted, each once.
    fn filter(&self, wanted: impl Fn(u32) -> bool) -> Vec<f32> {
        let rows = self.rows.chunks_exact(self.k).zip(self.slots.chunks(self.share));
        let kept = rows.filter(|(_, slots)| slots.iter().any(|&expert| wanted(expert)));
        kept.flat_map(|(row, _)| row).copied().collect()
    }

    fn all(&self) -> Vec<f32> {
        self.filter(|expert| expert != NONE)
    }

    fn of(&self, expert: u32) -> Vec<f32> {
        self.filter(|chosen| chosen == expert)
    }
}

impl Job<'_> {
    /// Runs the model on the text of calibration.
    pub(super) async fn collect(
        &self,
        wanted: &mut [Statistics<'_>],
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        let Some(calibration) = self.calibration else { return Ok(()) };
        let gpu = self.model.gpu();
        let total = calibration.windows.len();
        for (i, window) in calibration.windows.iter().enumerate() {
            bar.set_message(format!("calibrating {} steps, window {} of {total}", wanted.len(), i + 1));
            bar.tick();
            let names = wanted.iter().flat_map(|statistics| statistics.step.notes()).collect();
            let notes = self.model.linear_inputs(window, names)?;
            for statistics in &mut *wanted {
                let (input, routes) = match statistics.step {
                    Step::Linear(step) => (step.modules.first(), None),
                    Step::Experts(step) => (Some(&step.input), notes.get(&step.routes)),
                };
                let Some(input) = input.and_then(|name| notes.get(name)) else { continue };
                let rows = input.to_f32(gpu).await.map_err(RunError::from)?;
                let slots = match routes {
                    Some(routes) => decode_routes(&routes.to_u32(gpu).await.map_err(RunError::from)?),
                    None => Vec::new(),
                };
                let slots: Vec<u32> = slots.into_iter().map(|(expert, _)| expert).collect();
                statistics.add(&rows, &slots);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three tokens of two channels with two choices each; one choice is without an expert.
    #[test]
    fn rows_by_experts() {
        const SLOTS: [u32; 6] = [0, 2, 2, 1, NONE, NONE];
        let x = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5];
        let before = Gathered { rows: &x, k: 2, share: 2, slots: &SLOTS };
        assert_eq!(before.of(0), [1.0, 1.5]);
        assert_eq!(before.of(1), [2.0, 2.5]);
        assert_eq!(before.of(2), [1.0, 1.5, 2.0, 2.5]);
        assert!(before.of(3).is_empty());
        // Each token once, and none that went nowhere.
        assert_eq!(before.all(), [1.0, 1.5, 2.0, 2.5]);
        let h: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let behind = Gathered { rows: &h, k: 2, share: 1, slots: &SLOTS };
        assert_eq!(behind.of(0), [0.0, 1.0]);
        assert_eq!(behind.of(1), [6.0, 7.0]);
        assert_eq!(behind.of(2), [2.0, 3.0, 4.0, 5.0]);
        assert_eq!(behind.all(), h[..8]);
    }
}

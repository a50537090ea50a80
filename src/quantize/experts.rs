//! The matrices of all experts of a layer: one plan for their input, grids and rounding by the tokens of each.

use girih_model::checkpoint::weights::Weights;
use girih_quantize::{InputPlan, Module, QuantizedLinear};
use indicatif::ProgressBar;

use super::statistics::Statistics;
use super::steps::{ExpertStep, Step, fitting_experts};
use super::{Job, ModuleInfo};
use crate::error::Failure;

/// Rows of all experts together that the plan looks at.
const PLAN_ROWS: usize = 4096;

impl Job<'_> {
    /// The experts of a step whose statistics are collected in one pass of the text.
    pub(super) fn first_experts(&self, step: &Step) -> u32 {
        let Step::Experts(experts) = step else { return 0 };
        let all = experts.shape[0];
        if self.calibration.is_none() {
            return all;
        }
        fitting_experts(step.bytes(self.scheme.needs_hessian()), all, self.memory)
    }

    /// Quantises all experts; what `statistics` lacks of them is collected in further passes.
    pub(super) async fn quantize_experts<'a>(
        &self,
        (step, experts): (&'a Step, &ExpertStep),
        weights: &Weights,
        mut statistics: Statistics<'a>,
        bar: &ProgressBar,
    ) -> Result<(QuantizedLinear, Vec<ModuleInfo>), Failure> {
        let [count, _, k] = experts.shape;
        let calibrated = self.calibration.is_some();
        let all = statistics.all.take().filter(|_| calibrated);
        // Without statistics the plan looks at no weights.
        let rows = self.plan_rows(experts, weights, if calibrated { count } else { 1 }).await?;
        let name = step.name();
        let sample = Module { name: &name, n: rows.len() / (k as usize).max(1), weight: &rows };
        let plan = InputPlan::new(&self.scheme, &[sample], all.as_ref(), self.seed)?;
        drop((rows, all));
        let (mut quantized, mut infos) = (Vec::new(), Vec::new());
        let mut expert = 0;
        while expert < count {
            if expert >= statistics.experts.end {
                let end = count.min(expert + statistics.experts.len().max(1) as u32);
                statistics = Statistics::new(step, false, expert..end, self);
                self.collect(std::slice::from_mut(&mut statistics), bar).await?;
            }
            bar.set_message(format!("rounding {name}, expert {expert}"));
            let at = (expert - statistics.experts.start) as usize;
            let stats = statistics.each.get(at).filter(|_| calibrated);
            let matrices = experts.modules(weights, expert).await?;
            let rows = |weight: &[f32]| weight.len() / (k as usize).max(1);
            let modules: Vec<Module<'_>> =
                matrices.iter().map(|(name, weight)| Module { name, n: rows(weight), weight }).collect();
            quantized.extend(plan.round(&modules, stats)?);
            infos.extend(modules.iter().map(|m| ModuleInfo {
                rows: m.n,
                k: k as usize,
                rejected: stats.map_or(0, |s| s.rejected),
                expert: Some((experts.layer, expert, stats.map(|s| s.rows))),
            }));
            expert += 1;
        }
        Ok((plan.with(quantized), infos))
    }

    /// Rows at equal distances of the matrices of the first experts.
    async fn plan_rows(
        &self,
        step: &ExpertStep,
        weights: &Weights,
        experts: u32,
    ) -> Result<Vec<f32>, Failure> {
        let k = step.shape[2] as usize;
        let mut rows = Vec::new();
        for expert in 0..experts {
            let modules = step.modules(weights, expert).await?;
            let most = (PLAN_ROWS / (experts as usize * modules.len()).max(1)).max(1);
            for (_, weight) in &modules {
                let n = weight.len() / k.max(1);
                let kept = n.min(most);
                for i in 0..kept {
                    rows.extend_from_slice(&weight[i * n / kept * k..][..k]);
                }
            }
        }
        Ok(rows)
    }
}

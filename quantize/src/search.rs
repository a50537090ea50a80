//! Searches that minimise the error of the product on the sample of the inputs.

use girih_kernels::quant::{Format, QuantActivation};

use crate::grid::Rule;
use crate::linear::{Module, round_nearest};
use crate::measure;
use crate::transform::{HostMix, Transformer};
use crate::{InputStats, QuantizeError};

/// Rows of weights that searches look at.
const ROWS: usize = 512;
/// Rows of inputs that searches look at.
const INPUTS: usize = 256;
/// Points of the search over powers of the mean input (Lin et al. 2024).
const POWERS: u32 = 20;

/// What is compared: some rows of inputs and of weights, and their product.
pub struct Problem {
    pub k: usize,
    pub x: Vec<f32>,
    pub w: Vec<f32>,
    pub y: Vec<f32>,
    pub format: Format,
    pub rule: Rule,
}

impl Problem {
    pub fn new(format: Format, rule: Rule, modules: &[Module], stats: &InputStats) -> Self {
        let k = stats.k;
        let rows: Vec<&[f32]> = modules.iter().flat_map(|m| m.weight.chunks_exact(k)).collect();
        let inputs: Vec<&[f32]> = stats.sample.chunks_exact(k).collect();
        let (x, w) = (measure::spread(&inputs, INPUTS), measure::spread(&rows, ROWS));
        let y = measure::product(&x, &w, k);
        Self { k, x, w, y, format, rule }
    }

    /// `‖Y - X̂Ŵᵀ‖² / ‖Y‖²` with weights rounded to nearest.
    pub fn error(&self, transformer: &Transformer, activation: QuantActivation) -> f64 {
        let x = transformer.inputs(&self.x);
        let weight = self.rounded(transformer, &x);
        self.error_of(x, activation, &weight)
    }

    /// Weights rounded to nearest, for transformed inputs `x`.
    fn rounded(&self, transformer: &Transformer, x: &[f32]) -> Vec<f32> {
        let weight = transformer.weights(&self.w);
        round_nearest(self.format, &weight, &measure::power(x, self.k), self.rule).values
    }

    fn error_of(&self, mut x: Vec<f32>, activation: QuantActivation, rounded: &[f32]) -> f64 {
        x.chunks_exact_mut(self.k).for_each(|row| measure::round_activations(activation, row));
        let (signal, noise) = measure::energies(&self.y, &measure::product(&x, rounded, self.k));
        noise / signal.max(f64::MIN_POSITIVE)
    }
}

/// The channel scale of AWQ: inputs are divided, weights multiplied by `mean|x|^α / √(max · min)`, α of 20 by the least
/// error of the product.
pub fn awq(
    problem: &Problem,
    activation: QuantActivation,
    mean_abs: &[f32],
) -> Result<Option<Vec<f32>>, QuantizeError> {
    let k = problem.k;
    let none = Transformer::new(k, None, HostMix::None)?;
    let mut best = (problem.error(&none, activation), None);
    let floor = mean_abs.iter().fold(0f32, |m, v| m.max(*v)) * 1e-4;
    if floor == 0.0 {
        return Ok(None);
    }
    for i in 1..POWERS {
        let alpha = i as f32 / POWERS as f32;
        let t: Vec<f32> = mean_abs.iter().map(|v| v.max(floor).powf(alpha)).collect();
        let (lo, hi) = t.iter().fold((f32::MAX, 0f32), |(lo, hi), t| (lo.min(*t), hi.max(*t)));
        let middle = (lo * hi).sqrt();
        let scale = Some(t.iter().map(|t| middle / t).collect::<Vec<f32>>());
        let transformer = Transformer::new(k, scale.clone(), HostMix::None)?;
        let error = problem.error(&transformer, activation);
        if error < best.0 {
            best = (error, scale);
        }
    }
    Ok(best.1)
}

/// The share of the range of integer activations with the least error of the product; the whole range for
/// [`QuantActivation::INT8`], which kernels that multiply few rows find inside of the product, unclipped.
pub fn clip(problem: &Problem, transformer: &Transformer, activation: QuantActivation) -> QuantActivation {
    let QuantActivation::Int { bits, group, .. } = activation else { return activation };
    if activation == QuantActivation::INT8 {
        return activation;
    }
    let x = transformer.inputs(&problem.x);
    let weight = problem.rounded(transformer, &x);
    let mut best = (f64::INFINITY, activation);
    for step in 0..10u8 {
        let activation = QuantActivation::Int { bits, group, clip: f32::from(20 - step) / 20.0 };
        let error = problem.error_of(x.clone(), activation, &weight);
        if error < best.0 {
            best = (error, activation);
        }
    }
    best.1
}

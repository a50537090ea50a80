//! [`InputPlan`]: what happens to an input before its products, and rounding matrices for it.

use girih_kernels::quant::{Code, QuantActivation, Scale, pack_row};

use crate::grid::Rule;
use crate::linear::{LayerReport, Module, QuantizedLinear, QuantizedModule, round_nearest};
use crate::random::Random;
use crate::scheme::Transform;
use crate::search::{self, Problem};
use crate::transform::{self, HostMix, Transformer};
use crate::{InputStats, QuantizeError, Scheme, flat, gptq, measure};

/// Rows of the sample that errors are reported on.
const REPORTED: usize = 128;

/// Channels of matrices that share an input, with statistics of it that fit.
fn check(modules: &[Module], stats: Option<&InputStats>) -> Result<usize, QuantizeError> {
    let shape =
        |name: &str, want: String, got: String| QuantizeError::Shape { name: name.to_owned(), want, got };
    let Some(first) = modules.first() else {
        return Err(shape("", "at least one matrix".to_owned(), "none".to_owned()));
    };
    let k = first.weight.len().checked_div(first.n).unwrap_or(0);
    for m in modules {
        if k == 0 || m.n == 0 || m.weight.len() != m.n * k {
            let want = format!("{} rows of {k} channels, both more than 0", m.n);
            return Err(shape(m.name, want, format!("{} weights", m.weight.len())));
        }
        if !m.weight.iter().all(|w| w.is_finite()) {
            return Err(QuantizeError::NotFinite { name: m.name.to_owned(), what: "the weight" });
        }
    }
    if let Some(stats) = stats {
        let sizes = [stats.k, stats.amax.len(), stats.mean_abs.len(), stats.sum_sq.len()];
        if sizes.iter().any(|n| *n != k) || stats.sample.len() % k != 0 {
            return Err(shape(first.name, format!("statistics of {k} channels"), format!("{sizes:?}")));
        }
        if !stats.sample.iter().all(|v| v.is_finite()) || !stats.sum_sq.iter().all(|v| v.is_finite()) {
            return Err(QuantizeError::NotFinite { name: first.name.to_owned(), what: "the statistics" });
        }
        if stats.hessian.as_ref().is_some_and(|h| h.len() != k * k) {
            return Err(shape(first.name, format!("second moments [{k}, {k}]"), "another size".to_owned()));
        }
    }
    Ok(k)
}

/// Refuses to go on without what the scheme needs of the input.
fn check_statistics(scheme: &Scheme, stats: Option<&InputStats>) -> Result<(), QuantizeError> {
    if !scheme.needs_calibration() {
        return Ok(());
    }
    let calibration = |want, got| QuantizeError::Calibration { scheme: scheme.to_string(), want, got };
    let stats = stats.ok_or_else(|| calibration("statistics", "none"))?;
    let transformed = !matches!(scheme.transform(), Transform::None | Transform::Hadamard);
    if stats.rows == 0 || (transformed && stats.sample.is_empty()) {
        return Err(calibration("statistics and a sample", "no rows"));
    }
    Ok(())
}

/// The same of the second moments that GPTQ needs.
pub(crate) fn check_moments(scheme: &Scheme, stats: Option<&InputStats>) -> Result<(), QuantizeError> {
    if scheme.needs_hessian() && stats.is_some_and(|stats| stats.hessian.is_none()) {
        let (want, got) = ("second moments", "statistics without them");
        return Err(QuantizeError::Calibration { scheme: scheme.to_string(), want, got });
    }
    Ok(())
}

/// MXFP4 and NVFP4 always take the best of a few scales: it costs little and FP4 grids gain most by it.
fn scale_rule(scheme: &Scheme) -> Rule {
    let fp4 = scheme.format().code == Code::E2m1;
    if scheme.searches_scales() || fp4 { Rule::Search } else { Rule::Absmax }
}

/// What happens to inputs and weights before they are rounded: the transform, how the input is rounded, and what of the
/// scheme cannot be done.
fn plan(
    scheme: &Scheme,
    modules: &[Module],
    stats: Option<&InputStats>,
    k: usize,
    seed: u64,
) -> Result<(Transformer, QuantActivation, Option<String>), QuantizeError> {
    let (format, activation) = (scheme.format(), scheme.activation());
    let problem = stats.filter(|s| !s.sample.is_empty() && scheme.searches_scales());
    let problem = problem.map(|stats| (Problem::new(format, scale_rule(scheme), modules, stats), stats));
    let (scale, mix) = match (scheme.transform(), &problem) {
        (Transform::Hadamard, _) if matches!(format.scale, Scale::E8m0 | Scale::E4m3) => {
            (None, HostMix::hadamard_blocks(k, format.group))
        }
        (Transform::Hadamard, _) => (None, HostMix::hadamard(k)),
        (Transform::Awq, Some((problem, stats))) => {
            (search::awq(problem, activation, &stats.mean_abs)?, HostMix::None)
        }
        (Transform::FlatFree | Transform::Flat, Some((_, stats))) => {
            let weights: Vec<&[f32]> = modules.iter().map(|m| m.weight).collect();
            let mut scale = transform::balance(&weights, &stats.sum_sq, stats.rows);
            // Signs keep channels that move together from adding up in one channel of the rotation.
            let mut random = Random::new(seed);
            for s in &mut scale {
                *s = if random.bits() >> 63 == 0 { *s } else { -*s };
            }
            (Some(scale), HostMix::hadamard(k))
        }
        (Transform::None | Transform::Awq | Transform::FlatFree | Transform::Flat, _) => {
            (None, HostMix::None)
        }
    };
    let rotates = matches!(scheme.transform(), Transform::Hadamard | Transform::FlatFree | Transform::Flat);
    let unrotated = (rotates && mix == HostMix::None)
        .then(|| format!("not rotated: {k} channels have no Hadamard matrix"));
    let transformer = Transformer::new(k, scale.clone(), mix)?;
    let Some((problem, stats)) = &problem else { return Ok((transformer, activation, unrotated)) };
    let activation = search::clip(problem, &transformer, activation);
    match scale {
        Some(scale) if scheme.transform() == Transform::Flat => {
            let weights: Vec<&[f32]> = modules.iter().map(|m| m.weight).collect();
            let start = (transformer, activation);
            let ((transformer, activation), note) =
                flat::train(problem, &stats.sample, &weights, &scale, start, seed)?;
            // Where training was of no use the start is kept, rotated or not.
            let notes =
                note.map(|note| unrotated.iter().fold(note, |note, other| format!("{note}; {other}")));
            Ok((transformer, activation, notes))
        }
        _ => Ok((transformer, activation, unrotated)),
    }
}

/// What matrices that share an input have in common: how x is scaled, mixed and rounded before all their products.
#[derive(Clone, Debug)]
pub struct InputPlan {
    scheme: Scheme,
    k: usize,
    transformer: Transformer,
    activation: QuantActivation,
    note: Option<String>,
}

impl InputPlan {
    /// Plans for matrices with these rows (searches look at some of them, so that a part of the rows of many matrices does)
    /// and this input. Second moments are not used. The result depends on the arguments alone, not on the number of
    /// threads.
    ///
    /// # Errors
    /// Shapes that do not fit, values that are not finite, statistics that the scheme needs and that are missing.
    pub fn new(
        scheme: &Scheme,
        modules: &[Module],
        stats: Option<&InputStats>,
        seed: u64,
    ) -> Result<Self, QuantizeError> {
        let k = check(modules, stats)?;
        check_statistics(scheme, stats)?;
        let (transformer, activation, note) = plan(scheme, modules, stats, k, seed)?;
        Ok(Self { scheme: *scheme, k, transformer, activation, note })
    }

    /// Channels of the input.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Rounds matrices with this input, of whose rows `stats` are those that they are multiplied with: all rows of the input
    /// that was planned for, or of an expert the rows that were routed to it. Without statistics, or with those of no
    /// rows, weights are rounded to nearest, whatever the scheme, and where scales are searched all channels count the
    /// same.
    ///
    /// # Errors
    /// As [`InputPlan::new`]; statistics without second moments, if the scheme wants them.
    pub fn round(
        &self,
        modules: &[Module],
        stats: Option<&InputStats>,
    ) -> Result<Vec<QuantizedModule>, QuantizeError> {
        let Self { scheme, k, transformer, activation, .. } = self;
        let found = check(modules, stats)?;
        if found != *k {
            let name = modules.first().map_or("", |m| m.name).to_owned();
            let (want, got) = (format!("{k} channels, as the input has"), format!("{found} channels"));
            return Err(QuantizeError::Shape { name, want, got });
        }
        let stats = stats.filter(|stats| stats.rows > 0);
        check_moments(scheme, stats)?;
        let (k, format, rule) = (*k, scheme.format(), scale_rule(scheme));
        let factor = match stats.and_then(|s| s.hessian.as_ref()) {
            Some(hessian) if scheme.uses_gptq() => {
                Some(gptq::Factor::new(transformer.second_moments(hessian), k, true)?)
            }
            _ => None,
        };
        let sample = stats.map(|s| s.sample.as_slice()).filter(|s| !s.is_empty());
        let power = sample.map_or_else(|| vec![1.0; k], |x| measure::power(&transformer.inputs(x), k));
        let sample = sample.map(|x| measure::spread(&x.chunks_exact(k).collect::<Vec<_>>(), REPORTED));
        let sample = sample.as_deref();
        let transformed = sample.map(|x| transformer.inputs(x));
        let rounded_input = transformed.as_ref().map(|x| {
            let mut x = x.clone();
            x.chunks_exact_mut(k).for_each(|row| measure::round_activations(*activation, row));
            x
        });
        let input_sqnr =
            transformed.as_ref().zip(rounded_input.as_ref()).map(|(x, r)| measure::energies(x, r));
        let mut quantized = Vec::with_capacity(modules.len());
        for module in modules {
            let weight = transformer.weights(module.weight);
            let rounded = match &factor {
                Some(factor) => factor.round(format, &weight, &power, rule),
                None => round_nearest(format, &weight, &power, rule),
            };
            let (mut codes, mut scales) = (Vec::new(), Vec::new());
            for row in &rounded.rows {
                pack_row(format, row, &mut codes, &mut scales);
            }
            let (signal, noise) = measure::energies(&weight, &rounded.values);
            let output = sample.zip(rounded_input.as_ref()).map(|(x, r)| {
                let exact = measure::product(x, module.weight, k);
                measure::energies(&exact, &measure::product(r, &rounded.values, k))
            });
            let report = LayerReport {
                weight_sqnr_db: measure::decibels(signal, noise),
                input_sqnr_db: input_sqnr.map(|(s, n)| measure::decibels(s, n)),
                output_sqnr_db: output.map(|(s, n)| measure::decibels(s, n)),
                amax_over_rms_before: sample.map(|x| measure::amax_over_rms(x, k)),
                amax_over_rms_after: transformed.as_ref().map(|x| measure::amax_over_rms(x, k)),
                condition: transformer.condition(),
            };
            quantized.push(QuantizedModule { name: module.name.to_owned(), format, codes, scales, report });
        }
        Ok(quantized)
    }

    /// The plan with its matrices.
    pub fn with(self, modules: Vec<QuantizedModule>) -> QuantizedLinear {
        let Self { transformer, activation, note, .. } = self;
        let (input_scale, mix) = transformer.parts();
        QuantizedLinear { activation, input_scale, mix, modules, note }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize_linear;

    /// Experts: one plan from the rows of all, each matrix by the rows that it is multiplied with, or by none.
    #[test]
    fn one_plan_serves_matrices_with_inputs_of_their_own() {
        let k = 64;
        let mut random = Random::new(8);
        let mut normal = |n: usize| (0..n * k).map(|_| random.normal() as f32).collect::<Vec<f32>>();
        let (weights, x) = ([normal(8), normal(8)], normal(120));
        // The first matrix is given rows whose odd channels are small, the other one those whose even channels are.
        let x: Vec<f32> = x
            .iter()
            .enumerate()
            .map(|(i, x)| if (i % 2 == 0) == (i / k % 2 == 0) { *x } else { x * 0.02 })
            .collect();
        let of = |parity: Option<usize>, moments| {
            let mut stats = InputStats::new(k, moments, 256, 0);
            let rows = x.chunks(k).enumerate().filter(|(i, _)| parity.is_none_or(|p| i % 2 == p));
            stats.add(&rows.flat_map(|(_, row)| row).copied().collect::<Vec<f32>>());
            stats
        };
        let module = |i: usize| Module { name: "m", n: 8, weight: &weights[i] };
        let both = [module(0), module(1)];
        for scheme in ["w4a16-g32-gptq", "w4a8-g32-flat-free-gptq", "w4a16-g32-mse"] {
            let scheme: Scheme = scheme.parse().expect("a scheme");
            let pooled = of(None, false);
            let plan = InputPlan::new(&scheme, &both, Some(&pooled), 0).expect("a plan without moments");
            let round = |i: usize, stats: Option<&InputStats>| {
                plan.round(&[module(i)], stats).expect("rounded").remove(0)
            };
            // What a matrix is given is what it is rounded for: better there than rounded for the other one's rows.
            let given = of(Some(0), true);
            let [own, other] = [0, 1].map(|parity| {
                let rounded = round(0, Some(&of(Some(parity), true)));
                let (c, s) = (rounded.codes.len() / 8, rounded.scales.len() / 8);
                let values: Vec<f32> = (0..8)
                    .flat_map(|n| {
                        let (codes, scales) = (&rounded.codes[n * c..][..c], &rounded.scales[n * s..][..s]);
                        let row = girih_kernels::quant::unpack_row(rounded.format, k as u32, codes, scales);
                        row.values(rounded.format)
                    })
                    .map(|v| v as f32)
                    .collect();
                let x = plan.transformer.inputs(&given.sample);
                let exact = measure::product(&given.sample, &weights[0], k);
                let (signal, noise) = measure::energies(&exact, &measure::product(&x, &values, k));
                measure::decibels(signal, noise)
            });
            let gain = if scheme.uses_gptq() { 0.5 } else { 0.05 };
            assert!(own > other + gain, "{scheme}: {own} dB with its own rows, {other} with others");
            // Without rows: to nearest, the same with no statistics and with those of no rows.
            let none = round(1, None);
            let empty = round(1, Some(&InputStats::new(k, true, 256, 0)));
            assert_eq!((&none.codes, &none.scales), (&empty.codes, &empty.scales));
            assert!(none.report.output_sqnr_db.is_none() && none.report.weight_sqnr_db > 15.0);
            let alone = quantize_linear(&scheme, &both, Some(&of(None, true)), 0).expect("quantised");
            let joined = plan.clone().with(Vec::new());
            assert_eq!((alone.input_scale, alone.mix), (joined.input_scale, joined.mix), "one plan");
            if scheme.needs_hessian() {
                let error = plan.round(&both, Some(&pooled)).expect_err("no moments").to_string();
                assert!(error.contains("second moments"), "{error}");
            }
            let wide = vec![1.0; 128];
            let error =
                plan.round(&[Module { name: "w", n: 1, weight: &wide }], None).expect_err("128 channels");
            assert!(error.to_string().contains("128"), "{error}");
        }
    }
}

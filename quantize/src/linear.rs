//! [`quantize_linear`].

use girih_kernels::quant::{Code, Format, QuantActivation, Row, Scale, pack_row};

use crate::grid::{self, Rule};
use crate::random::Random;
use crate::scheme::Transform;
use crate::search::{self, Problem};
use crate::transform::{self, HostMix, Transformer};
use crate::{InputStats, QuantizeError, Scheme, flat, gptq, measure, parallel};

/// Rows of the sample that errors are reported on.
const REPORTED: usize = 128;

/// A matrix to quantise.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    /// Name.
    pub name: &'a str,
    /// Rows.
    pub n: usize,
    /// `[n, k]`.
    pub weight: &'a [f32],
}

/// Matrices that share an input, quantised: `y = quant(mix(input_scale · x)) · Ŵᵀ`.
#[derive(Clone, Debug)]
pub struct QuantizedLinear {
    /// How the input is rounded.
    pub activation: QuantActivation,
    /// `[k]`, multiplies the input first.
    pub input_scale: Option<Vec<f32>>,
    /// What mixes the channels after that.
    pub mix: HostMix,
    /// The matrices, in the order given.
    pub modules: Vec<QuantizedModule>,
    /// What was done in another way than the scheme says, and why.
    pub note: Option<String>,
}

/// A quantised matrix.
#[derive(Clone, Debug)]
pub struct QuantizedModule {
    /// Name.
    pub name: String,
    /// Format of the words.
    pub format: Format,
    /// `[n, format.code_words(k)]`.
    pub codes: Vec<u32>,
    /// `[n, format.scale_words(k)]`.
    pub scales: Vec<u32>,
    /// What it cost.
    pub report: LayerReport,
}

/// Errors of a quantised matrix. Ratios in dB are at most 200; those of inputs and outputs are taken on up to 128 rows of
/// the sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerReport {
    /// `‖W'‖² / ‖W' - Ŵ‖²` of the transformed weights.
    pub weight_sqnr_db: f64,
    /// `‖X'‖² / ‖X' - X̂‖²` of the transformed inputs of the sample; `None` without statistics.
    pub input_sqnr_db: Option<f64>,
    /// `‖XWᵀ‖² / ‖XWᵀ - X̂Ŵᵀ‖²` on the sample; `None` without statistics.
    pub output_sqnr_db: Option<f64>,
    /// Mean over the sample of `max|x| / rms(x)` before the transform.
    pub amax_over_rms_before: Option<f64>,
    /// The same after the transform.
    pub amax_over_rms_after: Option<f64>,
    /// Condition number of the transform: that of the mix times the spread of the scales.
    pub condition: f64,
}

/// The rows of a matrix after rounding, with their values.
pub(crate) struct Rounded {
    pub rows: Vec<Row>,
    pub values: Vec<f32>,
}

/// Rounds each row to the nearest codes. `power`: mean squares of the inputs, by which errors count where scales are
/// searched.
pub(crate) fn round_nearest(format: Format, weight: &[f32], power: &[f32], rule: Rule) -> Rounded {
    let k = power.len();
    let rows = parallel::map(weight.len() / k, |n| {
        let mut values = weight[n * k..][..k].to_vec();
        let mut row = grid::fit_row(format, &values, power, rule);
        grid::round_row(format, &mut row, &mut values);
        (row, values)
    });
    let mut rounded =
        Rounded { rows: Vec::with_capacity(rows.len()), values: Vec::with_capacity(weight.len()) };
    for (row, values) in rows {
        rounded.rows.push(row);
        rounded.values.extend(values);
    }
    rounded
}

fn check(scheme: &Scheme, modules: &[Module], stats: Option<&InputStats>) -> Result<usize, QuantizeError> {
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
    let calibration = |want, got| QuantizeError::Calibration { scheme: scheme.to_string(), want, got };
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
    if scheme.needs_calibration() {
        let stats = stats.ok_or_else(|| calibration("statistics", "none"))?;
        let transformed = !matches!(scheme.transform(), Transform::None | Transform::Hadamard);
        if stats.rows == 0 || (transformed && stats.sample.is_empty()) {
            return Err(calibration("statistics and a sample", "no rows"));
        }
        if scheme.needs_hessian() && stats.hessian.is_none() {
            return Err(calibration("second moments", "statistics without them"));
        }
    }
    Ok(k)
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

/// Quantises matrices that share an input. The result depends on the arguments alone, not on the number of threads.
///
/// # Errors
/// Shapes that do not fit, values that are not finite, statistics that the scheme needs and that are missing.
pub fn quantize_linear(
    scheme: &Scheme,
    modules: &[Module],
    stats: Option<&InputStats>,
    seed: u64,
) -> Result<QuantizedLinear, QuantizeError> {
    let k = check(scheme, modules, stats)?;
    let (transformer, activation, note) = plan(scheme, modules, stats, k, seed)?;
    let (format, rule) = (scheme.format(), scale_rule(scheme));
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
        x.chunks_exact_mut(k).for_each(|row| measure::round_activations(activation, row));
        x
    });
    let input_sqnr = transformed.as_ref().zip(rounded_input.as_ref()).map(|(x, r)| measure::energies(x, r));
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
    let (input_scale, mix) = transformer.parts();
    Ok(QuantizedLinear { activation, input_scale, mix, modules: quantized, note })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn inputs_are_checked() {
        let scheme: Scheme = "w4a16".parse().expect("a scheme");
        let gptq: Scheme = "w4a16-gptq".parse().expect("a scheme");
        let weight = vec![1.0; 64];
        let module = |n, weight| Module { name: "m", n, weight };
        let run = |scheme: &Scheme, modules: &[Module], stats: Option<&InputStats>| {
            quantize_linear(scheme, modules, stats, 0).err().map(|e| e.to_string())
        };
        assert!(run(&scheme, &[], None).is_some());
        assert!(run(&scheme, &[module(0, &weight)], None).is_some());
        assert!(run(&scheme, &[module(3, &weight)], None).is_some());
        assert!(run(&scheme, &[module(2, &weight), module(4, &weight)], None).is_some());
        assert!(run(&scheme, &[module(2, &[f32::NAN, 1.0])], None).is_some());
        assert!(run(&gptq, &[module(2, &weight)], None).is_some());
        let mut stats = InputStats::new(32, false, 4, 0);
        assert!(run(&gptq, &[module(2, &weight)], Some(&stats)).is_some());
        stats.add(&[1.0; 32]);
        assert!(run(&gptq, &[module(2, &weight)], Some(&stats)).is_some());
        assert!(run(&scheme, &[module(4, &weight)], Some(&stats)).is_some());
        assert_eq!(run(&scheme, &[module(2, &weight)], Some(&stats)), None);
    }

    #[test]
    fn what_cannot_be_done_is_noted() {
        let note = |scheme: &str, k: usize| {
            let mut random = Random::new(5);
            let mut normal = |n: usize| (0..n * k).map(|_| random.normal() as f32).collect::<Vec<f32>>();
            let (weight, x) = (normal(4), normal(70));
            let mut stats = InputStats::new(k, false, 64, 0);
            stats.add(&x);
            let module = Module { name: "m", n: 4, weight: &weight };
            let scheme = scheme.parse().expect("a scheme");
            quantize_linear(&scheme, &[module], Some(&stats), 0).expect("it can be quantised").note
        };
        let says = |scheme: &str, k: usize, words: &[&str]| {
            let note = note(scheme, k).unwrap_or_default();
            assert!(words.iter().all(|w| note.contains(w)), "{scheme}, {k}: {note:?}");
        };
        says("w4a8-hadamard", 31, &["not rotated", "31 channels"]);
        says("w4a8-flat-free", 31, &["not rotated"]);
        says("w4a8-flat", 521, &["flat-free instead of flat", "521", "not rotated"]);
        says("w4a8-g32-flat", 48, &["flat-free instead of flat", "groups of 32"]);
        for scheme in ["w4a8", "w4a8-hadamard", "w4a8-flat-free", "mxfp4-hadamard"] {
            assert_eq!(note(scheme, 64), None, "{scheme}");
        }
    }

    /// Inputs of one large channel among small ones, where a clip would pay.
    #[test]
    fn groups_of_32_activations_are_never_clipped() {
        let k = 64;
        let mut random = Random::new(6);
        let mut normal = |n: usize| (0..n * k).map(|_| random.normal() as f32).collect::<Vec<f32>>();
        let (mut weight, mut x) = (normal(8), normal(64));
        x.iter_mut().step_by(k).for_each(|x| *x *= 300.0);
        weight.iter_mut().step_by(k).for_each(|w| *w *= 1e-4);
        let mut stats = InputStats::new(k, true, 64, 0);
        stats.add(&x);
        let activation = |scheme: &str| {
            let module = Module { name: "m", n: 8, weight: &weight };
            let scheme = scheme.parse().expect("a scheme");
            quantize_linear(&scheme, &[module], Some(&stats), 0).expect("it can be quantised").activation
        };
        assert_ne!(activation("w4a8-mse").to_string(), "int8-token");
        for scheme in ["mxfp4-a8", "mxfp4-a8-mse", "nvfp4-a8-gptq", "nvfp4-a8-awq"] {
            assert_eq!(activation(scheme), QuantActivation::INT8, "{scheme}");
        }
    }

    #[test]
    fn words_are_those_of_the_rows() {
        let mut random = Random::new(4);
        let (n, k) = (6, 96);
        let weight: Vec<f32> = (0..n * k).map(|_| random.normal() as f32).collect();
        for info in crate::schemes().into_iter().filter(|s| !s.scheme.needs_calibration()) {
            let module = Module { name: "m", n, weight: &weight };
            let quantized = quantize_linear(&info.scheme, &[module], None, 0).expect("it can be quantised");
            let m = &quantized.modules[0];
            let words = (m.format.code_words(k as u32) as usize, m.format.scale_words(k as u32) as usize);
            assert_eq!((m.codes.len(), m.scales.len()), (n * words.0, n * words.1), "{}", info.name);
            assert!(m.report.weight_sqnr_db > 14.0 && m.report.output_sqnr_db.is_none(), "{}", info.name);
        }
    }
}

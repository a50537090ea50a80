//! [`quantize_linear`].

use girih_kernels::quant::{Format, QuantActivation, Row};

use crate::grid::{self, Rule};
use crate::plan::{InputPlan, check_moments};
use crate::transform::HostMix;
use crate::{InputStats, QuantizeError, Scheme, parallel};

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

/// Quantises matrices that share an input, all rows of which they are multiplied with: [`InputPlan`] and its
/// [`round`](InputPlan::round). The result depends on the arguments alone, not on the number of threads.
///
/// # Errors
/// Shapes that do not fit, values that are not finite, statistics that the scheme needs and that are missing.
pub fn quantize_linear(
    scheme: &Scheme,
    modules: &[Module],
    stats: Option<&InputStats>,
    seed: u64,
) -> Result<QuantizedLinear, QuantizeError> {
    check_moments(scheme, stats)?;
    let plan = InputPlan::new(scheme, modules, stats, seed)?;
    let quantized = plan.round(modules, stats)?;
    Ok(plan.with(quantized))
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

//! How a matrix is kept on the GPU: formats of its parts, activations, transforms of x.

use girih_ops::WeightFormat;
use girih_ops::kernels::matmul::int::is_integer;
use girih_ops::kernels::quant::{Code, Format, QuantActivation};

use super::rows::{Origin, Segment};
use super::{WeightPolicy, Weights};
use crate::LoadError;
use crate::checkpoint::quantized::{self, ChannelMix, QuantModule};
use crate::checkpoint::tensors::float_type;

/// How a matrix is kept on the GPU.
pub(super) struct Layout {
    /// Rows of each part, in order.
    pub parts: Vec<(u32, WeightFormat)>,
    pub activation: QuantActivation,
    pub input: quantized::InputTransform,
}

impl Weights {
    /// Formats, activations and transforms of a matrix `[n, k]`, or of the matrices of `experts` that have `n` rows
    /// together. The rows of an expert have one format.
    pub(super) fn layout(
        &self,
        segments: &[Segment<'_>],
        [experts, n]: [u32; 2],
        policy: WeightPolicy,
    ) -> Result<Layout, LoadError> {
        let names = || names(segments);
        let quantised: Vec<&QuantModule> = segments.iter().filter_map(|s| s.origin.quant()).collect();
        let (activation, mut input) = transforms(segments, &quantised)?;
        // Rows in f32 of what cannot be had otherwise.
        let mut decode = false;
        if policy.force == Some(WeightFormat::F32) {
            decode = !quantised.is_empty();
        } else if let Some(module) = quantised.iter().find(|m| !m.is_packable()) {
            self.note(format!(
                "{}: groups of other sizes than kernels read (format {}); decoded to f32",
                names(),
                module.format
            ));
            decode = true;
        } else if input.is_none() {
            self.note(format!("{}: x is permuted in different ways; decoded to f32", names()));
            decode = true;
        }
        let mut dense = None;
        for s in segments {
            if let Some(info) = s.origin.dense() {
                let stored = float_type(info)?;
                dense = Some(dense.map_or(stored, |t| if t == stored { t } else { WeightFormat::F32 }));
            }
        }
        let mut formats: Vec<WeightFormat> = Vec::new();
        for s in segments {
            formats.push(match (&s.origin, policy.force) {
                (Origin::Quant(..), _) if decode => WeightFormat::F32,
                (Origin::Quant(module, name), Some(force)) if force != module.format.into() => {
                    let want = format!("left out, f32 (decoded exactly) or {}", module.format);
                    let (tensor, got) = (name.clone(), module.format.to_string());
                    return Err(LoadError::Requantize { tensor, got, want });
                }
                (Origin::Quant(module, _), _) => module.format.into(),
                (dense, Some(WeightFormat::Quant(format))) => {
                    let head = dense.name().ends_with("lm_head.weight");
                    WeightFormat::Quant(if head && format.code.bits() < 8 { Format::Q8_0 } else { format })
                }
                (_, Some(force)) => force,
                (_, None) => dense.unwrap_or(WeightFormat::F32),
            });
        }
        let whole = unified(&formats);
        let mut parts: Vec<(u32, WeightFormat)> = Vec::new();
        let runs = match whole {
            Some(format) => Some(vec![(n, format)]),
            None if experts > 1 => expert_runs(segments, &formats, n / experts),
            // Alternate rows must have one format.
            None if segments.iter().any(|s| s.stride > 1) => None,
            None => Some(segments.iter().zip(&formats).map(|(s, &format)| (s.rows as u32, format)).collect()),
        };
        if let Some(runs) = runs {
            for (run, format) in runs {
                match parts.last_mut() {
                    Some((rows, last)) if *last == format => *rows += run,
                    _ => parts.push((run, format)),
                }
            }
        } else {
            if !quantised.is_empty() {
                self.note(format!("{}: formats differ in alternate rows; decoded to f32", names()));
            }
            decode = true;
            parts.push((n, WeightFormat::F32));
        }
        // Decoded rows are those of x as it comes.
        if decode && input.as_ref().is_none_or(|i| matches!(i.mix, ChannelMix::Permute(_))) {
            input = Some(quantized::InputTransform::default());
        }
        let activation = activation_of(&parts, activation, policy, &names)?;
        Ok(Layout { parts, activation, input: input.unwrap_or_default() })
    }
}

/// One format that holds all exactly, if there is one.
fn unified(formats: &[WeightFormat]) -> Option<WeightFormat> {
    let (&first, rest) = formats.split_first()?;
    rest.iter().try_fold(first, |a, &b| match (a, b) {
        (a, b) if a == b => Some(a),
        (WeightFormat::Quant(a), WeightFormat::Quant(b)) => quantized::unify(a, b).map(Into::into),
        _ => None,
    })
}

/// Rows and format of each expert, where each has one.
fn expert_runs(
    segments: &[Segment<'_>],
    formats: &[WeightFormat],
    rows: u32,
) -> Option<Vec<(u32, WeightFormat)>> {
    let expert = |s: &Segment<'_>| s.dst / u64::from(rows.max(1));
    let mut rest = formats;
    let mut runs = Vec::new();
    for of_expert in segments.chunk_by(|a, b| expert(a) == expert(b)) {
        let (of_expert, later) = rest.split_at(of_expert.len());
        runs.push((rows, unified(of_expert)?));
        rest = later;
    }
    Some(runs)
}

/// Names of what a matrix is read from, of many the first ones and the last.
fn names(segments: &[Segment<'_>]) -> String {
    const MOST: usize = 8;
    let mut names: Vec<&str> = segments.iter().map(|s| s.origin.name()).collect();
    names.dedup();
    match names.as_slice() {
        [first @ .., last] if names.len() > MOST => {
            format!("{}, ... {last} ({} in all)", first[..MOST - 2].join(", "), names.len())
        }
        all => all.join(", "),
    }
}

/// Activation and transform of x that modules agree upon; no transform if they permute x in different ways.
fn transforms(
    segments: &[Segment<'_>],
    quantised: &[&QuantModule],
) -> Result<(QuantActivation, Option<quantized::InputTransform>), LoadError> {
    let Some(first) = quantised.first() else {
        return Ok((QuantActivation::Float, Some(quantized::InputTransform::default())));
    };
    let list = |of: &dyn Fn(&QuantModule) -> String| {
        let each = segments.iter().map(|s| s.origin.quant().map_or_else(|| "none".to_owned(), of));
        let mut each: Vec<_> = each.collect();
        if each.len() > 8 {
            each.dedup();
        }
        each.join(", ")
    };
    let mixed = quantised.len() < segments.len();
    let differs = |what, got| Err(LoadError::Fused { modules: names(segments), what, got });
    if quantised.iter().any(|m| m.activation != first.activation)
        || mixed && first.activation != QuantActivation::Float
    {
        return differs("activations", list(&|m| m.activation.to_string()));
    }
    let none = quantized::InputTransform::default();
    if quantised.iter().all(|m| m.input == first.input) && !(mixed && first.input != none) {
        return Ok((first.activation, Some(first.input.clone())));
    }
    let permutes = |m: &&QuantModule| {
        m.input.scale.is_none() && matches!(m.input.mix, ChannelMix::None | ChannelMix::Permute(_))
    };
    if quantised.iter().all(permutes) {
        return Ok((first.activation, None));
    }
    differs("transforms of x", list(&|m| m.input.describe()))
}

/// How x enters the product with these parts.
fn activation_of(
    parts: &[(u32, WeightFormat)],
    stored: QuantActivation,
    policy: WeightPolicy,
    names: &dyn Fn() -> String,
) -> Result<QuantActivation, LoadError> {
    let all_quantised = parts.iter().all(|(_, f)| matches!(f, WeightFormat::Quant(_)));
    let activation = policy.activations.unwrap_or(stored);
    if !all_quantised || activation == QuantActivation::Float {
        return Ok(QuantActivation::Float);
    }
    for (_, format) in parts {
        let WeightFormat::Quant(format) = format else { continue };
        let want = if format.code == Code::E4m3 {
            "use float activations with FP8 weights"
        } else if !is_integer(*format) {
            "groups must be 16 channels, a multiple of 32, or the row"
        } else {
            continue;
        };
        let (got, activation) = (format.to_string(), activation.to_string());
        return Err(LoadError::Activations { tensor: names(), got, activation, want });
    }
    Ok(activation)
}

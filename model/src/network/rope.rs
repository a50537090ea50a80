//! Frequencies of rotary position embeddings, as transformers computes them: in f32, step by step.
//!
//! Source: `modeling_rope_utils.py` of transformers; llama3, yarn (arXiv:2309.00071), longrope (arXiv:2402.13753).

use serde_json::{Map, Value};

use crate::LoadError;
use crate::checkpoint::format::json::{excerpt, excerpt_or_absent};

/// Length scaling of a rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// None: `inv_freq[i] = theta^(-2i/R)`.
    Default,
    /// Positions divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Theta grows with the sequence length once that exceeds the trained one.
    Dynamic {
        /// Factor of the growth.
        factor: f64,
    },
    /// A larger theta, `theta · alpha^(R / (R - 2))`, whatever the length (Hunyuan, which calls it dynamic).
    Alpha {
        /// Growth of the longest wave.
        alpha: f64,
    },
    /// Low frequencies divided, high ones kept, a ramp between.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Where the ramp begins, in turns within the trained length.
        low_freq_factor: f64,
        /// Where the ramp ends.
        high_freq_factor: f64,
        /// Trained length.
        original_max_position_embeddings: f64,
    },
    /// Interpolated low frequencies, kept high ones, warmer attention.
    Yarn {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Trained length.
        original_max_position_embeddings: f64,
        /// Turns above which a frequency is kept.
        beta_fast: f64,
        /// Turns below which a frequency is divided.
        beta_slow: f64,
        /// Factor of cosine and sine, if given.
        attention_factor: Option<f64>,
        /// Magnitude scale.
        mscale: Option<f64>,
        /// Magnitude scale of all dimensions.
        mscale_all_dim: Option<f64>,
        /// Whether the ends of the ramp are whole channels.
        truncate: bool,
    },
    /// A divisor of its own for each frequency, one list for short and one for long sequences.
    LongRope {
        /// Divisors up to the trained length.
        short_factor: Vec<f64>,
        /// Divisors beyond it.
        long_factor: Vec<f64>,
        /// Trained length.
        original_max_position_embeddings: f64,
        /// Ratio of the lengths, if given.
        factor: Option<f64>,
        /// Factor of cosine and sine, if given.
        attention_factor: Option<f64>,
        /// Factors of cosine and sine up to the trained length and beyond it (Phi-3.5-MoE).
        mscales: Option<[f64; 2]>,
    },
}

/// A rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeParameters {
    /// Base of the frequencies.
    pub rope_theta: f64,
    /// Rotated share of a head, 0..=1.
    pub partial_rotary_factor: f64,
    /// Longest sequence the model is made for.
    pub max_position_embeddings: u32,
    /// Scaling.
    pub scaling: RopeScaling,
}

/// Frequencies for one sequence length.
#[derive(Clone, Debug, PartialEq)]
pub struct Frequencies {
    /// Angle per position of each rotated pair, `[R/2]`.
    pub inv_freq: Vec<f32>,
    /// What cosine and sine are multiplied with.
    pub attention_factor: f64,
}

impl Frequencies {
    /// Cosine and sine at a position, times the attention factor. The angle is rounded to f32 first.
    pub fn cos_sin(&self, position: u32) -> (Vec<f32>, Vec<f32>) {
        let angles = self.inv_freq.iter().map(|f| f64::from(position as f32 * f));
        let factor = self.attention_factor;
        angles.map(|a| ((a.cos() * factor) as f32, (a.sin() * factor) as f32)).unzip()
    }
}

impl RopeParameters {
    /// Reads the dictionary that checkpoints call `rope_parameters` or, without theta, `rope_scaling`. A trained
    /// length that stands outside of it goes before the one inside.
    ///
    /// # Errors
    /// [`LoadError::Config`]: an unknown type, a field that is missing or out of range.
    pub fn parse(
        params: &Map<String, Value>,
        default_theta: f64,
        default_partial: f64,
        max_position_embeddings: u32,
        original_max_position_embeddings: Option<u32>,
    ) -> Result<Self, LoadError> {
        let optional = |name: &str, min: f64| number(params, name, min);
        let required = |name: &str, min: f64| {
            optional(name, min)?.ok_or_else(|| bad(name, "absent".into(), "a number for this rope_type"))
        };
        let max = f64::from(max_position_embeddings);
        let original = || {
            let given = optional("original_max_position_embeddings", 1.0)?;
            Ok::<_, LoadError>(original_max_position_embeddings.map(f64::from).or(given).unwrap_or(max))
        };
        let factors = |name: &str| {
            let list = params.get(name).and_then(Value::as_array);
            let list = list.and_then(|l| l.iter().map(Value::as_f64).collect::<Option<Vec<_>>>());
            list.filter(|l| l.iter().all(|f| f.is_finite() && *f > 0.0))
                .ok_or_else(|| bad(name, excerpt_or_absent(params.get(name)), "a list of positive numbers"))
        };
        let kind = ["rope_type", "type"].iter().find_map(|name| params.get(*name).filter(|v| !v.is_null()));
        let scaling = match kind.map_or(Some("default"), Value::as_str) {
            Some("default") => RopeScaling::Default,
            Some("linear") => RopeScaling::Linear { factor: required("factor", 1.0)? },
            Some("dynamic") => match optional("alpha", 0.0)?.filter(|&alpha| alpha > 0.0) {
                Some(alpha) => RopeScaling::Alpha { alpha },
                None => RopeScaling::Dynamic { factor: required("factor", 1.0)? },
            },
            Some("llama3") => {
                let (low, high) = (required("low_freq_factor", 0.0)?, required("high_freq_factor", 0.0)?);
                if low >= high || low <= 0.0 {
                    return Err(bad(
                        "low_freq_factor",
                        low.to_string(),
                        "positive and below high_freq_factor",
                    ));
                }
                RopeScaling::Llama3 {
                    factor: required("factor", 1.0)?,
                    low_freq_factor: low,
                    high_freq_factor: high,
                    original_max_position_embeddings: original()?,
                }
            }
            Some("yarn") => {
                let original = original()?;
                RopeScaling::Yarn {
                    factor: optional("factor", 1.0)?.unwrap_or(max / original),
                    original_max_position_embeddings: original,
                    beta_fast: optional("beta_fast", f64::MIN_POSITIVE)?.unwrap_or(32.0),
                    beta_slow: optional("beta_slow", f64::MIN_POSITIVE)?.unwrap_or(1.0),
                    attention_factor: optional("attention_factor", f64::MIN_POSITIVE)?,
                    mscale: optional("mscale", 0.0)?,
                    mscale_all_dim: optional("mscale_all_dim", 0.0)?,
                    truncate: match params.get("truncate") {
                        None | Some(Value::Null) => true,
                        Some(Value::Bool(truncate)) => *truncate,
                        other => return Err(bad("truncate", excerpt_or_absent(other), "true or false")),
                    },
                }
            }
            Some("longrope" | "su") => RopeScaling::LongRope {
                short_factor: factors("short_factor")?,
                long_factor: factors("long_factor")?,
                original_max_position_embeddings: original()?,
                factor: optional("factor", f64::MIN_POSITIVE)?,
                attention_factor: optional("attention_factor", f64::MIN_POSITIVE)?,
                mscales: match [optional("short_mscale", 0.0)?, optional("long_mscale", 0.0)?] {
                    [Some(short), Some(long)] => Some([short, long]),
                    _ => None,
                },
            },
            _ => {
                let want = "default, linear, dynamic, llama3, yarn or longrope";
                return Err(bad("rope_type", excerpt_or_absent(kind), want));
            }
        };
        let partial_rotary_factor =
            optional("partial_rotary_factor", f64::MIN_POSITIVE)?.unwrap_or(default_partial);
        if partial_rotary_factor > 1.0 {
            return Err(bad(
                "partial_rotary_factor",
                partial_rotary_factor.to_string(),
                "above 0, at most 1",
            ));
        }
        Ok(Self {
            rope_theta: optional("rope_theta", 1.0 + f64::EPSILON)?.unwrap_or(default_theta),
            partial_rotary_factor,
            max_position_embeddings,
            scaling,
        })
    }

    /// Rotated channels R of a head.
    pub fn rotary_dim(&self, head_dim: u32) -> u32 {
        (f64::from(head_dim) * self.partial_rotary_factor) as u32
    }

    /// Longest sequence that the configuration asks for: the length that the scaling is made for where it multiplies a
    /// known one, else `max_position_embeddings`.
    ///
    /// `factor · original_max_position_embeddings` for yarn, `factor · max_position_embeddings` for linear: such
    /// configurations keep the trained length in `max_position_embeddings`, as the documentation of transformers and
    /// the vendors say. llama3 and longrope state the scaled length itself; dynamic scaling changes the frequencies
    /// with the length of each sequence, which is not supported.
    pub fn scaled_length(&self) -> u32 {
        let max = f64::from(self.max_position_embeddings);
        let scaled = match self.scaling {
            RopeScaling::Yarn { factor, original_max_position_embeddings, .. } => {
                factor * original_max_position_embeddings
            }
            RopeScaling::Linear { factor } => factor * max,
            _ => max,
        };
        // Saturates.
        max.max(scaled.floor()) as u32
    }

    /// Factor that yarn gives queries, and keys, beside that of cosine and sine (DeepSeek):
    /// `0.1 · mscale_all_dim · ln(factor) + 1`; 1 without either.
    pub fn magnitude_of_all(&self) -> f64 {
        match self.scaling {
            RopeScaling::Yarn { factor, mscale_all_dim: Some(all), .. } => magnitude(factor, all),
            _ => 1.0,
        }
    }

    /// Whether the frequencies change with the length of the sequence.
    pub fn depends_on_length(&self) -> bool {
        matches!(self.scaling, RopeScaling::Dynamic { .. } | RopeScaling::LongRope { .. })
    }

    /// Frequencies of `rotary_dim` rotated channels. `seq_len` matters to dynamic and longrope only; `None` means a
    /// sequence within the trained length.
    ///
    /// # Errors
    /// [`LoadError::Config`]: an odd or zero number of channels, lists of another length.
    pub fn frequencies(&self, rotary_dim: u32, seq_len: Option<u32>) -> Result<Frequencies, LoadError> {
        if rotary_dim == 0 || !rotary_dim.is_multiple_of(2) {
            return Err(bad("rotary channels", rotary_dim.to_string(), "even and at least 2"));
        }
        let half = rotary_dim as usize / 2;
        let dim = f64::from(rotary_dim);
        let theta = self.rope_theta;
        let plain = |theta: f64| powers(theta, half).into_iter().map(|p| 1.0 / p).collect::<Vec<f32>>();
        let mut attention_factor = 1.0;
        let inv_freq = match &self.scaling {
            RopeScaling::Default => plain(theta),
            RopeScaling::Linear { factor } => plain(theta).into_iter().map(|f| f / *factor as f32).collect(),
            RopeScaling::Dynamic { factor } => {
                let max = f64::from(self.max_position_embeddings);
                let len = seq_len.map_or(max, f64::from).max(max);
                if rotary_dim == 2 {
                    return Err(bad("rotary channels", "2".into(), "at least 4 with dynamic scaling"));
                }
                plain(theta * (factor * len / max - (factor - 1.0)).powf(dim / (dim - 2.0)))
            }
            RopeScaling::Alpha { alpha } => {
                if rotary_dim == 2 {
                    return Err(bad("rotary channels", "2".into(), "at least 4 with alpha"));
                }
                plain(theta * alpha.powf(dim / (dim - 2.0)))
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => {
                let turn = |f: f32| (2.0 * std::f64::consts::PI) as f32 / f;
                let bend = |f: f32| {
                    let wavelength = turn(f);
                    let scaled = f / *factor as f32;
                    if f64::from(wavelength) > original / low {
                        scaled
                    } else if f64::from(wavelength) < original / high {
                        f
                    } else {
                        let smooth = (*original as f32 / wavelength - *low as f32) / (high - low) as f32;
                        (1.0 - smooth) * f / *factor as f32 + smooth * f
                    }
                };
                plain(theta).into_iter().map(bend).collect()
            }
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings: original,
                beta_fast,
                beta_slow,
                attention_factor: given,
                mscale,
                mscale_all_dim,
                truncate,
            } => {
                let magnitude = |scale: f64| magnitude(*factor, scale);
                attention_factor = given.unwrap_or(match (mscale, mscale_all_dim) {
                    (Some(m), Some(all)) if *m != 0.0 && *all != 0.0 => magnitude(*m) / magnitude(*all),
                    _ => magnitude(1.0),
                });
                let channel = |turns: f64| {
                    dim * (original / (turns * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln())
                };
                let (mut low, mut high) = (channel(*beta_fast), channel(*beta_slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                (low, high) = (low.max(0.0), high.min(dim - 1.0));
                if low == high {
                    high += 0.001;
                }
                let blend = |(i, power): (usize, f32)| {
                    let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
                    let keep = 1.0 - ramp;
                    1.0 / (*factor as f32 * power) * (1.0 - keep) + 1.0 / power * keep
                };
                powers(theta, half).into_iter().enumerate().map(blend).collect()
            }
            RopeScaling::LongRope {
                short_factor,
                long_factor,
                original_max_position_embeddings: original,
                factor,
                attention_factor: given,
                mscales,
            } => {
                let ratio = factor.unwrap_or(f64::from(self.max_position_embeddings) / original);
                attention_factor = given.unwrap_or_else(|| {
                    if ratio <= 1.0 { 1.0 } else { (1.0 + ratio.ln() / original.ln()).sqrt() }
                });
                let long = seq_len.is_some_and(|len| f64::from(len) > *original);
                if let Some(mscales) = mscales {
                    attention_factor = mscales[usize::from(long)];
                }
                let (name, list) =
                    if long { ("long_factor", long_factor) } else { ("short_factor", short_factor) };
                if list.len() != half {
                    let got = format!("a list of {}", list.len());
                    return Err(bad(name, got, &format!("a list of {half}, half the rotated channels")));
                }
                powers(theta, half).into_iter().zip(list).map(|(p, &f)| 1.0 / (f as f32 * p)).collect()
            }
        };
        if !attention_factor.is_finite() || !inv_freq.iter().all(|f: &f32| f.is_finite()) {
            return Err(bad("rope_parameters", "frequencies that overflow".into(), "finite frequencies"));
        }
        Ok(Frequencies { inv_freq, attention_factor })
    }
}

/// `theta^(2i/R)` for i below R/2, in f32 as torch has it.
/// How much warmer yarn's attention is.
fn magnitude(factor: f64, scale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 }
}

fn powers(theta: f64, half: usize) -> Vec<f32> {
    let dim = 2.0 * half as f32;
    (0..half).map(|i| f64::from(theta as f32).powf(f64::from((2 * i) as f32 / dim)) as f32).collect()
}

fn number(params: &Map<String, Value>, name: &str, min: f64) -> Result<Option<f64>, LoadError> {
    match params.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64().filter(|v| v.is_finite() && *v >= min && *v <= 1e12) {
            Some(v) => Ok(Some(v)),
            None => Err(bad(name, excerpt(value), &format!("a number from {min} to 1e12"))),
        },
    }
}

fn bad(name: &str, got: String, want: &str) -> LoadError {
    LoadError::Config { field: format!("rope_parameters.{name}"), got, want: want.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_parameters_are_named() {
        for (json, field) in [
            (r#"{"rope_type":"spiral"}"#, "rope_type"),
            (r#"{"rope_type":7}"#, "rope_type"),
            (r#"{"rope_type":"linear"}"#, "factor"),
            (r#"{"rope_type":"linear","factor":0.0}"#, "factor"),
            (
                r#"{"rope_type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":4}"#,
                "low_freq_factor",
            ),
            (r#"{"rope_type":"yarn","factor":"x"}"#, "factor"),
            (r#"{"rope_type":"yarn","factor":4,"truncate":1}"#, "truncate"),
            (r#"{"rope_type":"longrope","short_factor":[1.0]}"#, "long_factor"),
            (r#"{"rope_theta":-1}"#, "rope_theta"),
            (r#"{"partial_rotary_factor":1.5}"#, "partial_rotary_factor"),
        ] {
            let params: Map<String, Value> = serde_json::from_str(json).expect("JSON");
            let error = RopeParameters::parse(&params, 1e4, 1.0, 128, None).expect_err(json);
            let want = format!("rope_parameters.{field}");
            assert!(matches!(&error, LoadError::Config { field, .. } if *field == want), "{json}: {error}");
        }
        let params = RopeParameters::parse(&Map::new(), 1e4, 1.0, 128, None).expect("default");
        assert!(params.frequencies(7, None).is_err() && params.frequencies(0, None).is_err());
    }
}

//! [`QuantActivation`]: how the input of a quantised matrix enters the product.

use std::fmt;
use std::str::FromStr;

use super::format::{Format, FormatError};

/// How activations enter a product. Integers are symmetric and dynamic: `scale = clip · max|x| / (2^(bits-1) - 1)`
/// over a group, `q = clamp(round_half_even(x / scale), -2^(bits-1), 2^(bits-1) - 1)`; a group of zeros has scale 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum QuantActivation {
    /// As they are, in f32.
    #[default]
    Float,
    /// Integers, in bytes, multiplied by integer dot products.
    Int {
        /// 2 to 8.
        bits: u8,
        /// Channels with one scale: a multiple of 32, or [`Format::ROW`] for one per token.
        group: u32,
        /// Share of the range that is kept, in (0, 1].
        clip: f32,
    },
}

impl QuantActivation {
    /// 8 bits with a scale for every 32 channels: the layout that needs no pass over the row before the product.
    pub const INT8: Self = Self::Int { bits: 8, group: 32, clip: 1.0 };
}

/// `float`, `int8-g32`, `int4-token`, `int4-token-c0.9`.
impl fmt::Display for QuantActivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Float => f.write_str("float"),
            Self::Int { bits, group, clip } => {
                write!(f, "int{bits}-")?;
                if group == Format::ROW {
                    f.write_str("token")?;
                } else {
                    write!(f, "g{group}")?;
                }
                if clip < 1.0 { write!(f, "-c{clip}") } else { Ok(()) }
            }
        }
    }
}

impl FromStr for QuantActivation {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let bad = |want| FormatError { got: text.to_owned(), want };
        if text == "float" {
            return Ok(Self::Float);
        }
        let parts: Vec<&str> = text.split('-').collect();
        let (bits, group, clip) = match parts.as_slice() {
            [bits, group] => (bits, group, None),
            [bits, group, clip] => (bits, group, Some(clip)),
            _ => return Err(bad("activations are float, int8-g32, int8-token, int4-token-c0.9")),
        };
        let bits = bits.strip_prefix("int").and_then(|b| b.parse().ok()).filter(|b| (2..=8).contains(b));
        let group = match *group {
            "token" => Some(Format::ROW),
            g => g
                .strip_prefix('g')
                .and_then(|g| g.parse().ok())
                .filter(|g: &u32| *g > 0 && g.is_multiple_of(32)),
        };
        let clip = match clip {
            None => Some(1.0),
            Some(c) => c.strip_prefix('c').and_then(|c| c.parse().ok()).filter(|c| *c > 0.0 && *c <= 1.0),
        };
        Ok(Self::Int {
            bits: bits.ok_or_else(|| bad("activations have 2 to 8 bits"))?,
            group: group.ok_or_else(|| bad("groups of activations are multiples of 32, or `token`"))?,
            clip: clip.ok_or_else(|| bad("a clip ratio lies in (0, 1]"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in ["float", "int8-g32", "int8-token", "int4-token-c0.9", "int4-g128"] {
            assert_eq!(name.parse::<QuantActivation>().map(|a| a.to_string()), Ok(name.to_owned()));
        }
        for bad in ["", "int8", "int9-token", "int8-g20", "int8-token-c2", "int8-token-cNaN", "int1-token"] {
            assert!(bad.parse::<QuantActivation>().is_err(), "{bad}");
        }
    }
}

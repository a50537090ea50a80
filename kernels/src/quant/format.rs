//! [`Format`]: how a quantised matrix is to be read.

use std::fmt;
use std::str::FromStr;

use girih_shaders::Selection;

use super::float;

/// What the codes of a matrix stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Unsigned integers 0..15.
    Int4,
    /// Unsigned integers 0..31.
    Int5,
    /// Unsigned integers 0..63.
    Int6,
    /// Signed integers -128..127.
    Int8,
    /// OCP E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives.
    E2m1,
    /// The 16 values of GGUF's IQ4_NL.
    Iq4Nl,
    /// OCP E4M3.
    E4m3,
}

/// GGUF's table of IQ4_NL.
pub(crate) const IQ4_NL: [i32; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl Code {
    /// All codes; the index is `CODE` of `quant/weights.wgsl`.
    pub const ALL: [Self; 7] =
        [Self::Int4, Self::Int5, Self::Int6, Self::Int8, Self::E2m1, Self::Iq4Nl, Self::E4m3];

    /// Bits of a code.
    pub fn bits(self) -> u32 {
        match self {
            Self::Int4 | Self::E2m1 | Self::Iq4Nl => 4,
            Self::Int5 => 5,
            Self::Int6 => 6,
            Self::Int8 | Self::E4m3 => 8,
        }
    }

    /// The integer of -128..127 that an integer dot product multiplies; `None` where there is none (E4M3).
    pub fn int(self, code: u8) -> Option<i32> {
        match self {
            Self::Int4 | Self::Int5 | Self::Int6 => Some(i32::from(code)),
            Self::Int8 => Some(i32::from(code.cast_signed())),
            Self::E2m1 => Some(float::e2m1_doubled(code)),
            Self::Iq4Nl => Some(IQ4_NL[usize::from(code & 15)]),
            Self::E4m3 => None,
        }
    }

    /// Value of one step of [`Code::int`].
    pub fn unit(self) -> f64 {
        if self == Self::E2m1 { 0.5 } else { 1.0 }
    }

    /// What a code stands for. The NaN codes of E4M3 give 0; loaders refuse them.
    pub fn value(self, code: u8) -> f64 {
        match self.int(code) {
            Some(v) => f64::from(v) * self.unit(),
            None => f64::from(float::from_e4m3(code).unwrap_or(0.0)),
        }
    }
}

/// Type of the scale of a group (and of its zero, if it has one).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scale {
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// Power of two, `2^(byte - 127)`; byte 0 counts as zero.
    E8m0,
    /// OCP E4M3.
    E4m3,
    /// Signed byte.
    I8,
}

impl Scale {
    /// All types; the index is `SCALE` of `quant/weights.wgsl`.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::E8m0, Self::E4m3, Self::I8];

    /// Bits of one scale.
    pub fn bits(self) -> u32 {
        match self {
            Self::F32 => 32,
            Self::F16 => 16,
            Self::E8m0 | Self::E4m3 | Self::I8 => 8,
        }
    }
}

/// Where the zero of a group lies. `v` is the value of a code, `s` the scale of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Zero {
    /// `w = s (v - z)`, the same z for all groups.
    Fixed(u8),
    /// `w = s (v - z)`, z stored with the scale.
    Point,
    /// `w = s v + m`, m stored with the scale (and multiplied by a second level of its own).
    Min,
}

/// Type of a second-level scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SuperScale {
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
}

/// Second level: the scale of a group is multiplied by that of its super-group. With [`Zero::Min`] a super-group has
/// two factors: one for scales, one for minima.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Super {
    /// Channels of a super-group, a multiple of the group; [`Format::ROW`] for the whole row.
    pub group: u32,
    /// Type.
    pub scale: SuperScale,
}

/// How a quantised matrix `[N, K]` is read: `w[n, k]` from its code, the scale (and zero) of its group and the
/// second-level scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    /// Codes.
    pub code: Code,
    /// Channels that share a scale: a multiple of 8, or [`Format::ROW`] for the whole row.
    pub group: u32,
    /// Scales.
    pub scale: Scale,
    /// Zeros.
    pub zero: Zero,
    /// Second level.
    pub second: Option<Super>,
}

/// A format that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("weight format `{got}`: {want}")]
pub struct FormatError {
    /// What was found.
    pub got: String,
    /// What it must be.
    pub want: &'static str,
}

impl Format {
    /// A group that spans the row.
    pub const ROW: u32 = 0;

    /// Integers with one f16 scale per group around the middle of the range (int8: around 0).
    pub const fn symmetric(code: Code, group: u32) -> Self {
        let zero = match code {
            Code::Int4 => 8,
            Code::Int5 => 16,
            Code::Int6 => 32,
            _ => 0,
        };
        Self { code, group, scale: Scale::F16, zero: Zero::Fixed(zero), second: None }
    }

    /// Integers with an f16 scale and an (integer) zero point per group.
    pub const fn asymmetric(code: Code, group: u32) -> Self {
        Self { code, group, scale: Scale::F16, zero: Zero::Point, second: None }
    }

    /// GGUF Q4_0; also the symmetric int4 of other tools at group 32.
    pub const Q4_0: Self = Self::symmetric(Code::Int4, 32);
    /// GGUF Q4_1: scale and minimum.
    pub const Q4_1: Self = Self { zero: Zero::Min, ..Self::Q4_0 };
    /// GGUF Q5_0.
    pub const Q5_0: Self = Self::symmetric(Code::Int5, 32);
    /// GGUF Q5_1.
    pub const Q5_1: Self = Self { zero: Zero::Min, ..Self::Q5_0 };
    /// GGUF Q8_0.
    pub const Q8_0: Self = Self::symmetric(Code::Int8, 32);
    /// GGUF Q4_K: 6-bit scales and minima of groups of 32, two f16 factors (of which that of the minima is stored
    /// negated) per 256.
    pub const Q4_K: Self = Self {
        code: Code::Int4,
        group: 32,
        scale: Scale::I8,
        zero: Zero::Min,
        second: Some(Super { group: 256, scale: SuperScale::F16 }),
    };
    /// GGUF Q5_K.
    pub const Q5_K: Self = Self { code: Code::Int5, ..Self::Q4_K };
    /// GGUF Q6_K.
    pub const Q6_K: Self = Self {
        code: Code::Int6,
        group: 16,
        scale: Scale::I8,
        zero: Zero::Fixed(32),
        second: Some(Super { group: 256, scale: SuperScale::F16 }),
    };
    /// GGUF IQ4_NL.
    pub const IQ4_NL: Self =
        Self { code: Code::Iq4Nl, group: 32, scale: Scale::F16, zero: Zero::Fixed(0), second: None };
    /// OCP MXFP4.
    pub const MXFP4: Self =
        Self { code: Code::E2m1, group: 32, scale: Scale::E8m0, zero: Zero::Fixed(0), second: None };
    /// NVFP4: E4M3 scales of groups of 16 under an f32 scale, one for each row here (the tensor's, repeated).
    pub const NVFP4: Self = Self {
        code: Code::E2m1,
        group: 16,
        scale: Scale::E4m3,
        zero: Zero::Fixed(0),
        second: Some(Super { group: Self::ROW, scale: SuperScale::F32 }),
    };
    /// QoQ (QServe): integer scales and zeros of groups of 128 under an f16 scale per row.
    pub const QOQ: Self = Self {
        code: Code::Int4,
        group: 128,
        scale: Scale::I8,
        zero: Zero::Point,
        second: Some(Super { group: Self::ROW, scale: SuperScale::F16 }),
    };
    /// FP8 E4M3 with f32 scales per `group` channels.
    pub const fn fp8(group: u32) -> Self {
        Self { code: Code::E4m3, group, scale: Scale::F32, zero: Zero::Fixed(0), second: None }
    }

    /// Checks that the parts fit each other.
    ///
    /// # Errors
    /// Groups that are not multiples of 8, super-groups that are not multiples of groups, zeros beside power-of-two
    /// or E4M3 scales, zeros with codes that are no integers.
    pub fn check(self) -> Result<Self, FormatError> {
        let bad = |want| Err(FormatError { got: self.to_string(), want });
        if !self.group.is_multiple_of(8) {
            return bad("a group must be a multiple of 8 channels");
        }
        if let Some(Super { group, .. }) = self.second
            && group != Self::ROW
            && (self.group == Self::ROW || !group.is_multiple_of(self.group))
        {
            return bad("a super-group must be a multiple of the group");
        }
        if self.has_zero() && matches!(self.scale, Scale::E8m0 | Scale::E4m3) {
            return bad("zeros need scales of type f32, f16 or i8");
        }
        let integers = !matches!(self.code, Code::E2m1 | Code::Iq4Nl | Code::E4m3);
        if !integers && self.zero != Zero::Fixed(0) {
            return bad("only integer codes have a zero");
        }
        Ok(self)
    }

    /// Whether a zero is stored with each scale.
    pub fn has_zero(self) -> bool {
        !matches!(self.zero, Zero::Fixed(_))
    }

    /// Groups of a row of `k` channels.
    pub fn groups(self, k: u32) -> u32 {
        if self.group == Self::ROW { 1 } else { k.div_ceil(self.group) }
    }

    /// Super-groups of a row of `k` channels; 0 without a second level.
    pub fn super_groups(self, k: u32) -> u32 {
        match self.second {
            None => 0,
            Some(s) if s.group == Self::ROW => 1,
            Some(s) => k.div_ceil(s.group),
        }
    }

    /// Words (u32) of a row's codes: rows are padded to blocks of 32 channels and to 16 bytes.
    pub fn code_words(self, k: u32) -> u32 {
        // Fits: 8 bits for each of 2^32 channels are 2^30 words.
        let blocks = k.div_ceil(32);
        (blocks * self.code.bits()).next_multiple_of(4)
    }

    /// Words (u32) in front of a row's group scales: the second level.
    pub fn super_words(self, k: u32) -> u32 {
        let Some(second) = self.second else { return 0 };
        let bits = if second.scale == SuperScale::F32 { 32u64 } else { 16 };
        let each = if self.zero == Zero::Min { 2 * bits } else { bits };
        (u64::from(self.super_groups(k)) * each).div_ceil(32) as u32
    }

    /// Words (u32) of a row's scales of both levels.
    pub fn scale_words(self, k: u32) -> u32 {
        let each = u64::from(self.scale.bits()) * if self.has_zero() { 2 } else { 1 };
        self.super_words(k) + (u64::from(self.groups(k)) * each).div_ceil(32) as u32
    }

    /// The constants of `quant/weights.wgsl`.
    pub(crate) fn apply(self, selection: Selection) -> Selection {
        let (zero, fixed) = match self.zero {
            Zero::Fixed(z) => (0u32, u32::from(z)),
            Zero::Point => (1, 0),
            Zero::Min => (2, 0),
        };
        let (second, super_groups) = match self.second {
            None => (0u32, 0),
            Some(s) => (
                if s.scale == SuperScale::F16 { 1 } else { 2 },
                if s.group == Self::ROW { 0 } else { s.group / self.group.max(1) },
            ),
        };
        selection
            .set("CODE", self.code as u32)
            .set("CODE_BITS", self.code.bits())
            .set("SCALE", self.scale as u32)
            .set("ZERO", zero)
            .set("ZERO_FIXED", fixed)
            .set("GROUP8", self.group / 8)
            .set("SUPER", second)
            .set("SUPER_GROUPS", super_groups)
    }

    /// What [`Format::apply`] put into a selection; `None` where there is no quantised format.
    pub(crate) fn of(selection: &Selection) -> Option<Self> {
        let get = |name: &str| selection.get_u32(name);
        let group = 8 * get("GROUP8")?;
        let code = *Code::ALL.get(get("CODE")? as usize)?;
        let scale = *Scale::ALL.get(get("SCALE")? as usize)?;
        let zero = match get("ZERO")? {
            0 => Zero::Fixed(get("ZERO_FIXED")? as u8),
            1 => Zero::Point,
            _ => Zero::Min,
        };
        let super_group = get("SUPER_GROUPS")? * group;
        let second = |scale| Some(Super { group: super_group, scale });
        let second = match get("SUPER")? {
            0 => None,
            1 => second(SuperScale::F16),
            _ => second(SuperScale::F32),
        };
        Some(Self { code, group, scale, zero, second })
    }

    /// Bits per weight of a matrix with rows of `k` channels, scales and padding included.
    pub fn bits_per_weight(self, k: u32) -> f64 {
        32.0 * (f64::from(self.code_words(k)) + f64::from(self.scale_words(k))) / f64::from(k)
    }
}

const CODE_NAMES: [&str; 7] = ["int4", "int5", "int6", "int8", "e2m1", "iq4nl", "e4m3"];
const SCALE_NAMES: [&str; 5] = ["f32", "f16", "e8m0", "e4m3", "i8"];

/// `code-group-scale-zero[-super]`: `int4-g128-f16-z8`, `int4-g32-i8-min-s256f16`, `e2m1-g16-e4m3-z0-srowf32`.
impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = |g: u32| if g == Self::ROW { "row".to_owned() } else { g.to_string() };
        let (code, scale) = (CODE_NAMES[self.code as usize], SCALE_NAMES[self.scale as usize]);
        write!(f, "{code}-g{}-{scale}", group(self.group))?;
        match self.zero {
            Zero::Fixed(z) => write!(f, "-z{z}")?,
            Zero::Point => f.write_str("-point")?,
            Zero::Min => f.write_str("-min")?,
        }
        match self.second {
            None => Ok(()),
            Some(s) => {
                let scale = if s.scale == SuperScale::F32 { "f32" } else { "f16" };
                write!(f, "-s{}{scale}", group(s.group))
            }
        }
    }
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let bad = |want| FormatError { got: text.to_owned(), want };
        let group = |s: &str| if s == "row" { Some(Self::ROW) } else { s.parse().ok().filter(|&g| g > 0) };
        let parts: Vec<&str> = text.splitn(5, '-').collect();
        let [code, g, scale, zero, second @ ..] = parts.as_slice() else {
            return Err(bad("written as code-group-scale-zero[-super], for example int4-g128-f16-z8"));
        };
        let code = CODE_NAMES.iter().position(|n| n == code).map(|i| Code::ALL[i]);
        let scale = SCALE_NAMES.iter().position(|n| n == scale).map(|i| Scale::ALL[i]);
        let zero = match *zero {
            "point" => Some(Zero::Point),
            "min" => Some(Zero::Min),
            z => z.strip_prefix('z').and_then(|z| z.parse().ok()).map(Zero::Fixed),
        };
        let second = match second.first() {
            None => None,
            Some(s) => {
                let s = s.strip_prefix('s').ok_or_else(|| bad("the second level is written as s256f16"))?;
                let (g, scale) = match (s.strip_suffix("f32"), s.strip_suffix("f16")) {
                    (Some(g), _) => (g, SuperScale::F32),
                    (_, Some(g)) => (g, SuperScale::F16),
                    _ => return Err(bad("a second level is f32 or f16")),
                };
                Some(Super { group: group(g).ok_or_else(|| bad("a group is a number or `row`"))?, scale })
            }
        };
        Self {
            code: code.ok_or_else(|| bad("codes are int4, int5, int6, int8, e2m1, iq4nl or e4m3"))?,
            group: g
                .strip_prefix('g')
                .and_then(group)
                .ok_or_else(|| bad("a group is written as g128 or grow"))?,
            scale: scale.ok_or_else(|| bad("scales are f32, f16, e8m0, e4m3 or i8"))?,
            zero: zero.ok_or_else(|| bad("zeros are written as z8, point or min"))?,
            second,
        }
        .check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let formats = [Format::Q4_0, Format::Q4_1, Format::Q5_0, Format::Q8_0, Format::Q4_K, Format::Q6_K];
        let more =
            [Format::MXFP4, Format::NVFP4, Format::QOQ, Format::IQ4_NL, Format::fp8(128), Format::fp8(0)];
        for format in formats.into_iter().chain(more) {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert_eq!(Format::Q4_K.to_string(), "int4-g32-i8-min-s256f16");
        assert_eq!(Format::NVFP4.to_string(), "e2m1-g16-e4m3-z0-srowf32");
        for bad in [
            "",
            "int4",
            "int3-g32-f16-z0",
            "int4-g12-f16-z8",
            "int4-g32-e8m0-point",
            "e2m1-g32-f16-min",
            "int4-g32-f16-z8-s40f16",
            "int4-g0-f16-z8",
            "int4-g32-f16-z999",
        ] {
            assert!(bad.parse::<Format>().is_err(), "{bad}");
        }
    }

    #[test]
    fn bits_per_weight() {
        for (format, want) in [
            (Format::Q4_0, 4.5),
            (Format::Q8_0, 8.5),
            (Format::Q4_K, 4.625),
            (Format::Q6_K, 6.5625),
            (Format::MXFP4, 4.25),
            (Format::symmetric(Code::Int4, 128), 4.125),
        ] {
            assert_eq!(format.bits_per_weight(4096), want, "{format}");
        }
        let widest: Format = "int8-g8-f32-min-s8f32".parse().expect("a format");
        assert!((widest.bits_per_weight(u32::MAX) - 24.0).abs() < 1e-3);
    }
}

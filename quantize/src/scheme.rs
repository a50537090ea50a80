//! [`Scheme`]: what `--scheme` names.

use std::fmt;
use std::str::FromStr;

use girih_kernels::quant::{Code, Format, QuantActivation};

use crate::QuantizeError;

/// Number formats of weights and activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    W8A16,
    W4A16,
    W8A8,
    W4A8,
    W4A4,
    Mxfp4,
    Nvfp4,
    Fp8,
    Qoq,
}

const BASES: [(Base, &str, &str); 9] = [
    (Base::W8A16, "w8a16", "8-bit integer weights in groups of 128, float activations; nearly lossless"),
    (Base::W4A16, "w4a16", "4-bit integer weights in groups of 128, float activations"),
    (Base::W8A8, "w8a8", "8-bit integer weights with a scale per row, 8-bit activations per token"),
    (Base::W4A8, "w4a8", "4-bit integer weights in groups of 128, 8-bit activations per token"),
    (Base::W4A4, "w4a4", "4-bit integer weights with a scale per row, 4-bit activations per token"),
    (Base::Mxfp4, "mxfp4", "OCP MXFP4 weights (E2M1, a power of two per 32), float activations"),
    (Base::Nvfp4, "nvfp4", "NVFP4 weights (E2M1, an E4M3 scale per 16), float activations"),
    (Base::Fp8, "fp8", "E4M3 weights with an f32 scale per row, float activations"),
    (Base::Qoq, "qoq", "4-bit weights in two integer levels (QServe), 8-bit activations per token"),
];

/// How weights and inputs are changed, without changing the product, before they are rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Transform {
    #[default]
    None,
    /// Per-channel scale found by search over powers of the mean input (AWQ).
    Awq,
    /// Hadamard matrix (QuaRot); in blocks as long as the scale groups for MXFP4 and NVFP4.
    Hadamard,
    /// Per-channel balance of root mean squares, then Hadamard.
    FlatFree,
    /// Per-channel scale and Kronecker factors trained per input (FlatQuant).
    Flat,
}

const TRANSFORMS: [(Transform, &str); 4] = [
    (Transform::Awq, "awq"),
    (Transform::Hadamard, "hadamard"),
    (Transform::FlatFree, "flat-free"),
    (Transform::Flat, "flat"),
];

/// How a model is quantised: written `base[-group][-asym][-a8][-transform][-mse][-gptq]`, for example `w4a16`,
/// `w4a16-g64-asym-gptq`, `w4a8-hadamard`, `w4a4-flat`, `mxfp4-hadamard-gptq`. [`schemes`] lists the usual ones.
/// Scales of groups are searched with `mse`, `gptq`, `awq`, `flat-free`, `flat` and those of MXFP4 and NVFP4 always;
/// otherwise the largest magnitude fits. With one of these suffixes and a sample of the inputs, the share of the range of
/// integer activations that is kept is searched too; `a8` of MXFP4 and NVFP4 always keeps all of it, as the kernels that
/// round activations inside of the product do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    base: Base,
    group: Option<u32>,
    asymmetric: bool,
    int8_input: bool,
    transform: Transform,
    search: bool,
    gptq: bool,
}

impl Scheme {
    /// Weight format.
    pub fn format(&self) -> Format {
        let group = |default| self.group.unwrap_or(default);
        let int4 = if self.asymmetric { Format::asymmetric } else { Format::symmetric };
        match self.base {
            Base::W8A16 => Format::symmetric(Code::Int8, group(128)),
            Base::W8A8 => Format::symmetric(Code::Int8, group(Format::ROW)),
            Base::W4A16 | Base::W4A8 => int4(Code::Int4, group(128)),
            Base::W4A4 => int4(Code::Int4, group(Format::ROW)),
            Base::Mxfp4 => Format::MXFP4,
            Base::Nvfp4 => Format::NVFP4,
            Base::Fp8 => Format::fp8(group(Format::ROW)),
            Base::Qoq => Format::QOQ,
        }
    }

    /// Activations, before a clip ratio is searched.
    pub fn activation(&self) -> QuantActivation {
        let token = |bits| QuantActivation::Int { bits, group: Format::ROW, clip: 1.0 };
        match self.base {
            Base::W8A8 | Base::W4A8 | Base::Qoq => token(8),
            Base::W4A4 => token(4),
            Base::Mxfp4 | Base::Nvfp4 if self.int8_input => QuantActivation::INT8,
            Base::W8A16 | Base::W4A16 | Base::Mxfp4 | Base::Nvfp4 | Base::Fp8 => QuantActivation::Float,
        }
    }

    /// Whether [`quantize_linear`](crate::quantize_linear) needs statistics of the inputs.
    pub fn needs_calibration(&self) -> bool {
        self.gptq || matches!(self.transform, Transform::Awq | Transform::FlatFree | Transform::Flat)
    }

    /// Whether the statistics must have second moments ([`InputStats::hessian`](crate::InputStats::hessian)).
    pub fn needs_hessian(&self) -> bool {
        self.gptq
    }

    pub(crate) fn transform(&self) -> Transform {
        self.transform
    }

    pub(crate) fn searches_scales(&self) -> bool {
        let plain = matches!(self.transform, Transform::None | Transform::Hadamard);
        self.search || self.gptq || !plain
    }

    pub(crate) fn uses_gptq(&self) -> bool {
        self.gptq
    }
}

fn group_name(group: u32) -> String {
    if group == Format::ROW { "row".to_owned() } else { format!("g{group}") }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(BASES.iter().find(|(b, ..)| *b == self.base).map_or("", |(_, name, _)| name))?;
        if let Some(group) = self.group {
            write!(f, "-{}", group_name(group))?;
        }
        let transform = TRANSFORMS.iter().find(|(t, _)| *t == self.transform).map(|(_, name)| *name);
        let suffixes = [
            self.asymmetric.then_some("asym"),
            self.int8_input.then_some("a8"),
            transform,
            self.search.then_some("mse"),
            self.gptq.then_some("gptq"),
        ];
        suffixes.into_iter().flatten().try_for_each(|suffix| write!(f, "-{suffix}"))
    }
}

impl FromStr for Scheme {
    type Err = QuantizeError;

    fn from_str(text: &str) -> Result<Self, QuantizeError> {
        let bad = |want: String| QuantizeError::Scheme { got: text.to_owned(), want };
        let mut parts = text.split('-').peekable();
        let name = parts.next().unwrap_or_default();
        let base = BASES.iter().find(|(_, n, _)| *n == name).map(|(b, ..)| *b).ok_or_else(|| {
            let names: Vec<&str> = BASES.iter().map(|(_, n, _)| *n).collect();
            bad(format!("a scheme starts with one of {}", names.join(", ")))
        })?;
        let mut scheme = Self {
            base,
            group: None,
            asymmetric: false,
            int8_input: false,
            transform: Transform::None,
            search: false,
            gptq: false,
        };
        let twice = || bad("each suffix is written once, and of the transforms only one".to_owned());
        let flag = |flag: &mut bool| if std::mem::replace(flag, true) { Err(twice()) } else { Ok(()) };
        while let Some(part) = parts.next() {
            match part {
                "mse" => flag(&mut scheme.search)?,
                "gptq" => flag(&mut scheme.gptq)?,
                "asym" => flag(&mut scheme.asymmetric)?,
                "a8" => flag(&mut scheme.int8_input)?,
                "awq" | "hadamard" | "flat" => {
                    if scheme.transform != Transform::None {
                        return Err(twice());
                    }
                    scheme.transform = match part {
                        "awq" => Transform::Awq,
                        "hadamard" => Transform::Hadamard,
                        _ if parts.next_if_eq(&"free").is_some() => Transform::FlatFree,
                        _ => Transform::Flat,
                    };
                }
                _ => {
                    let group = if part == "row" {
                        Some(Format::ROW)
                    } else {
                        let number = part.strip_prefix('g').and_then(|g| g.parse::<u32>().ok());
                        number.filter(|g| *g > 0 && g.is_multiple_of(32) && *g <= 1024)
                    };
                    let group = group.ok_or_else(|| {
                        bad(format!(
                            "`{part}` is none of awq, hadamard, flat-free, flat, mse, gptq, asym, a8, row or a \
                             group such as g128 (a multiple of 32 up to 1024)"
                        ))
                    })?;
                    if scheme.group.replace(group).is_some() {
                        return Err(twice());
                    }
                }
            }
        }
        let int4 = matches!(base, Base::W4A16 | Base::W4A8 | Base::W4A4);
        let integer = int4 || matches!(base, Base::W8A16 | Base::W8A8);
        if scheme.asymmetric && !int4 {
            return Err(bad("only w4a16, w4a8 and w4a4 can be asym".to_owned()));
        }
        if scheme.int8_input && !matches!(base, Base::Mxfp4 | Base::Nvfp4) {
            return Err(bad("only mxfp4 and nvfp4 take a8; the others name their activations".to_owned()));
        }
        if scheme.group.is_some() && !integer && base != Base::Fp8 {
            return Err(bad("the groups of mxfp4, nvfp4 and qoq are fixed".to_owned()));
        }
        if scheme.transform == Transform::Flat && (!integer || scheme.asymmetric) {
            return Err(bad("flat trains symmetric integer formats; take flat-free".to_owned()));
        }
        scheme.format().check()?;
        Ok(scheme)
    }
}

/// A line of [`schemes`].
#[derive(Clone, Debug)]
pub struct SchemeInfo {
    /// What `--scheme` takes.
    pub name: String,
    /// What it does.
    pub about: String,
    /// The scheme.
    pub scheme: Scheme,
}

impl SchemeInfo {
    /// Bits per weight of a matrix with rows of `k` channels, scales and padding included.
    pub fn bits_per_weight(&self, k: u32) -> f64 {
        self.scheme.format().bits_per_weight(k)
    }
}

/// The usual schemes: the bases alone, then those with a method that suits them.
pub fn schemes() -> Vec<SchemeInfo> {
    const METHODS: [(&str, &str); 19] = [
        ("w4a16-mse", "scale of each group by least squared error"),
        ("w4a16-asym-awq", "channels scaled by the size of their inputs (AWQ), zero points"),
        ("w4a16-gptq", "errors compensated by later channels (GPTQ, static groups, act order)"),
        ("w4a16-asym-gptq", "GPTQ with zero points"),
        ("w4a8-hadamard", "inputs and weights rotated by a Hadamard matrix (QuaRot)"),
        ("w4a8-flat-free", "channels balanced, then rotated: training-free FlatQuant"),
        ("w4a8-flat-free-gptq", "balanced, rotated, GPTQ"),
        ("w4a8-flat", "trained Kronecker transform (FlatQuant)"),
        ("w4a4-hadamard", "rotated by a Hadamard matrix (QuaRot)"),
        ("w4a4-hadamard-gptq", "rotated by a Hadamard matrix, GPTQ"),
        ("w4a4-flat-free-gptq", "balanced, rotated, GPTQ"),
        ("w4a4-flat", "trained Kronecker transform (FlatQuant)"),
        ("w8a8-hadamard", "rotated by a Hadamard matrix"),
        ("mxfp4-hadamard", "rotated in blocks of 32"),
        ("mxfp4-hadamard-gptq", "rotated in blocks of 32, GPTQ (MR-GPTQ)"),
        ("mxfp4-a8", "8-bit integer activations in groups of 32"),
        ("nvfp4-gptq", "GPTQ; rotations rarely help NVFP4"),
        ("nvfp4-a8", "8-bit integer activations in groups of 32"),
        ("qoq-gptq", "GPTQ"),
    ];
    let bases = BASES.iter().map(|(_, name, about)| (*name, *about));
    let all = bases.chain(METHODS).filter_map(|(name, about)| {
        let scheme = name.parse().ok()?;
        Some(SchemeInfo { name: name.to_owned(), about: about.to_owned(), scheme })
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let all = schemes();
        assert_eq!(all.len(), 28);
        for info in &all {
            assert_eq!(info.scheme.to_string(), info.name);
        }
        for name in
            ["w4a16-g64", "w4a4-g32-asym-flat-free-mse-gptq", "w8a16-row", "fp8-g128", "nvfp4-a8-gptq"]
        {
            assert_eq!(name.parse::<Scheme>().map(|s| s.to_string()), Ok(name.to_owned()));
        }
        let reordered: Scheme = "w4a8-gptq-hadamard".parse().expect("a scheme");
        assert_eq!(reordered.to_string(), "w4a8-hadamard-gptq");
        for bad in [
            "",
            "w3a16",
            "w4a16-g20",
            "w4a16-g64-g32",
            "w4a4-awq-flat",
            "w4a4-flat-asym",
            "w8a8-asym",
            "w4a8-a8",
            "mxfp4-g64",
            "nvfp4-flat",
            "w4a16-",
            "w4a16-mse-mse",
            "w4a16-free",
        ] {
            assert!(bad.parse::<Scheme>().is_err(), "{bad}");
        }
    }

    #[test]
    fn formats_of_schemes() {
        let scheme = |name: &str| name.parse::<Scheme>().expect("a scheme");
        let of = |name| (scheme(name).format().to_string(), scheme(name).activation().to_string());
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(of("w4a8-hadamard"), pair("int4-g128-f16-z8", "int8-token"));
        assert_eq!(of("w4a16-g64-asym"), pair("int4-g64-f16-point", "float"));
        assert_eq!(of("w4a4"), pair("int4-grow-f16-z8", "int4-token"));
        assert_eq!(of("mxfp4-a8"), pair("e2m1-g32-e8m0-z0", "int8-g32"));
        assert_eq!(schemes()[1].bits_per_weight(4096), 4.125);
        let needs = |name| (scheme(name).needs_calibration(), scheme(name).needs_hessian());
        assert_eq!(needs("w4a8-hadamard-mse"), (false, false));
        assert_eq!((needs("w4a4-flat"), needs("qoq-gptq")), ((true, false), (true, true)));
    }
}

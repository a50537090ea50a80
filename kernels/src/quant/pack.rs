//! The layout that kernels read.
//!
//! A row of K channels is a row of code words and a row of scale words; rows do not share words, so any set of rows
//! of two matrices of one format can be put together word by word.
//!
//! *Codes*, in blocks of 32 channels, the last one padded with codes that no kernel counts:
//! - 4 bits: word j of a block holds channels 8j .. 8j + 7; byte b is `code[b] | code[b + 4] << 4`, so
//!   `v & 0x0f0f0f0f` are channels 8j .. 8j + 3 and `v >> 4 & 0x0f0f0f0f` channels 8j + 4 .. 8j + 7;
//! - 5 and 6 bits: the low 4 bits as above for the whole row, then the high bits, 1 or 2 words a block: bits of
//!   channels 4i .. 4i + 3 of a block lie in byte b = channel % 4, 5 bits: bit `8b + i`; 6 bits: bits `8b + 2 (i % 4)`
//!   of word `i / 4`;
//! - 8 bits: word j of a block holds channels 4j .. 4j + 3, lowest byte first.
//!
//! *Scales*: the second level (per super-group; with [`Zero::Min`] the factor of the scales, then that of the
//! minima), padded to a word; then per group the scale and, if it has one, the zero. Elements of 8 and 16 bits fill
//! words from the lowest bits on.

use super::float;
use super::format::{Format, Scale, SuperScale, Zero};

/// A row in the form all formats share: one code per channel, one (scale, zero) per group, one (scale, min factor) per
/// super-group. Scales are given as values: those of type I8 as whole numbers, those of E8M0 and E4M3 as decoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// K codes.
    pub codes: Vec<u8>,
    /// Scale of each group.
    pub scales: Vec<f32>,
    /// Zero (or minimum) of each group; empty if the format has none.
    pub zeros: Vec<f32>,
    /// Second-level factor of the scales of each super-group; empty without a second level.
    pub supers: Vec<f32>,
    /// Second-level factor of the minima; empty unless the format has a second level and minima.
    pub super_mins: Vec<f32>,
}

impl Row {
    /// The values of the row by the definition of the format, in f64.
    pub fn values(&self, format: Format) -> Vec<f64> {
        let k = self.codes.len();
        let at = |group: u32, i: usize| if group == Format::ROW { 0 } else { i / group as usize };
        (0..k)
            .map(|i| {
                let g = at(format.group, i);
                let second = format.second.map(|s| at(s.group, i));
                let scale = f64::from(self.scales[g]) * second.map_or(1.0, |s| f64::from(self.supers[s]));
                let v = format.code.value(self.codes[i]);
                match format.zero {
                    Zero::Fixed(z) => scale * (v - f64::from(z)),
                    Zero::Point => scale * (v - f64::from(self.zeros[g])),
                    Zero::Min => {
                        let factor = second.map_or(1.0, |s| f64::from(self.super_mins[s]));
                        scale * v + f64::from(self.zeros[g]) * factor
                    }
                }
            })
            .collect()
    }
}

/// Appends elements of `bits` bits to whole words.
struct Bits<'a> {
    out: &'a mut Vec<u32>,
    used: u32,
}

impl<'a> Bits<'a> {
    fn new(out: &'a mut Vec<u32>) -> Self {
        Self { out, used: 32 }
    }

    fn push(&mut self, value: u32, bits: u32) {
        if self.used + bits > 32 {
            self.out.push(0);
            self.used = 0;
        }
        if let Some(last) = self.out.last_mut() {
            *last |= value << self.used;
        }
        self.used += bits;
    }
}

/// Bits of a scale as stored: the code nearest to the value, ties to even; values out of range take the last code on
/// their side. E8M0 has no sign and takes the magnitude; 1.5 lies between 1 and 2.
fn encode(scale: Scale, v: f32) -> u32 {
    match scale {
        Scale::F32 => v.to_bits(),
        Scale::F16 => half::f16::from_f32(v).to_bits().into(),
        Scale::E8m0 => {
            let bits = v.abs().to_bits();
            ((bits + 0x3f_ffff + (bits >> 23 & 1)) >> 23).min(254)
        }
        Scale::E4m3 => float::to_e4m3(v).into(),
        Scale::I8 => u32::from((v.round_ties_even() as i8).cast_unsigned()),
    }
}

fn decode(scale: Scale, bits: u32) -> f32 {
    match scale {
        Scale::F32 => f32::from_bits(bits),
        Scale::F16 => half::f16::from_bits(bits as u16).to_f32(),
        // As kernels do: code 0, 2^-127, is a denormal number and counts as zero.
        Scale::E8m0 => f32::from_bits((bits & 0xff) << 23),
        Scale::E4m3 => float::from_e4m3(bits as u8).unwrap_or(0.0),
        Scale::I8 => f32::from(bits as u8 as i8),
    }
}

/// Appends a row of `codes.len()` channels to `code_words` ([`Format::code_words`] words) and `scale_words`
/// ([`Format::scale_words`]). Scales, zeros and factors are rounded to their types, to the nearest
/// value with ties to even; values out of range become the last one, those of f16 infinite. E8M0 takes magnitudes. NaN
/// has no code in I8 and E8M0.
///
/// # Panics
/// If the lengths of the row's parts are not those of the format; they are the caller's own.
pub fn pack_row(format: Format, row: &Row, code_words: &mut Vec<u32>, scale_words: &mut Vec<u32>) {
    let k = row.codes.len() as u32;
    let first = code_words.len();
    code_words.resize(first + format.code_words(k) as usize, 0);
    let out = &mut code_words[first..];
    let (bits, blocks) = (format.code.bits() as usize, k.div_ceil(32) as usize);
    let mut put = |i: usize, quad: [u8; 4]| {
        // Four codes at a time: `i` counts quads.
        let (quad, block) = (u32::from_le_bytes(quad), i / 8);
        if bits == 8 {
            out[i] = quad;
            return;
        }
        out[i / 2] |= (quad & 0x0f0f_0f0f) << (4 * (i % 2));
        match bits {
            5 => out[4 * blocks + block] |= (quad >> 4 & 0x0101_0101) << (i % 8),
            6 => out[4 * blocks + 2 * block + i % 8 / 4] |= (quad >> 4 & 0x0303_0303) << (2 * (i % 4)),
            _ => {}
        }
    };
    let (quads, rest) = row.codes.as_chunks::<4>();
    quads.iter().enumerate().for_each(|(i, &quad)| put(i, quad));
    if !rest.is_empty() {
        let mut quad = [0; 4];
        quad[..rest.len()].copy_from_slice(rest);
        put(quads.len(), quad);
    }
    let super_bits = format.second.map_or(32, |s| if s.scale == SuperScale::F32 { 32 } else { 16 });
    let super_type = if super_bits == 32 { Scale::F32 } else { Scale::F16 };
    let mut stream = Bits::new(scale_words);
    for s in 0..format.super_groups(k) as usize {
        stream.push(encode(super_type, row.supers[s]), super_bits);
        if format.zero == Zero::Min {
            stream.push(encode(super_type, row.super_mins[s]), super_bits);
        }
    }
    let mut stream = Bits::new(scale_words);
    for g in 0..format.groups(k) as usize {
        stream.push(encode(format.scale, row.scales[g]), format.scale.bits());
        if format.has_zero() {
            stream.push(encode(format.scale, row.zeros[g]), format.scale.bits());
        }
    }
}

/// The row of `k` channels that [`pack_row`] wrote.
pub fn unpack_row(format: Format, k: u32, code_words: &[u32], scale_words: &[u32]) -> Row {
    let mut row = Row::default();
    let (bits, blocks) = (format.code.bits() as usize, k.div_ceil(32) as usize);
    for i in 0..k as usize {
        let (block, c) = (i / 32, i % 32);
        let (quad, byte) = (c / 4, c % 4);
        let low = || code_words[i / 8] >> (8 * (i % 4) + i % 8 / 4 * 4) & 15;
        row.codes.push(match bits {
            8 => code_words[i / 4] >> (8 * (i % 4)),
            5 => low() | (code_words[4 * blocks + block] >> (8 * byte + quad) & 1) << 4,
            6 => {
                low()
                    | (code_words[4 * blocks + 2 * block + quad / 4] >> (8 * byte + 2 * (quad % 4)) & 3) << 4
            }
            _ => low(),
        } as u8);
    }
    let element = |words: &[u32], i: u32, scale: Scale| {
        let bit = i * scale.bits();
        decode(scale, words[bit as usize / 32] >> (bit % 32))
    };
    if let Some(second) = format.second {
        let scale = if second.scale == SuperScale::F32 { Scale::F32 } else { Scale::F16 };
        let each = if format.zero == Zero::Min { 2 } else { 1 };
        for s in 0..format.super_groups(k) {
            row.supers.push(element(scale_words, each * s, scale));
            if each == 2 {
                row.super_mins.push(element(scale_words, 2 * s + 1, scale));
            }
        }
    }
    let words = &scale_words[format.super_words(k) as usize..];
    let each = if format.has_zero() { 2 } else { 1 };
    for g in 0..format.groups(k) {
        row.scales.push(element(words, each * g, format.scale));
        if each == 2 {
            row.zeros.push(element(words, 2 * g + 1, format.scale));
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::Code;

    fn all_formats() -> Vec<Format> {
        let mut all =
            vec![Format::Q4_0, Format::Q4_1, Format::Q5_0, Format::Q5_1, Format::Q8_0, Format::Q4_K];
        all.extend([Format::Q5_K, Format::Q6_K, Format::IQ4_NL, Format::MXFP4, Format::NVFP4, Format::QOQ]);
        all.extend([Format::fp8(Format::ROW), Format::fp8(128), Format::asymmetric(Code::Int8, 64)]);
        all.extend([Format { scale: Scale::F32, ..Format::asymmetric(Code::Int4, Format::ROW) }]);
        all
    }

    #[test]
    fn rows_round_trip() {
        for format in all_formats() {
            for k in [8, 30, 32, 96, 256, 264, 520] {
                let mut state = 7u32;
                let mut next = |n: u32| {
                    state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                    (state >> 16) % n
                };
                let mut scale = |scale: Scale| match scale {
                    Scale::F32 | Scale::F16 => next(2000) as f32 / 64.0 - 15.0,
                    Scale::E8m0 => 2f32.powi(next(20) as i32 - 10),
                    Scale::E4m3 => float::from_e4m3(next(0x7f) as u8).expect("a number"),
                    Scale::I8 => next(256) as f32 - 128.0,
                };
                let count = |n: u32, yes: bool| if yes { n } else { 0 };
                let (groups, supers) = (format.groups(k), format.super_groups(k));
                let second = format.second.is_some();
                let row = Row {
                    scales: (0..groups).map(|_| scale(format.scale)).collect(),
                    zeros: (0..count(groups, format.has_zero())).map(|_| scale(format.scale)).collect(),
                    supers: (0..supers).map(|_| scale(Scale::F16)).collect(),
                    super_mins: (0..count(supers, second && format.zero == Zero::Min))
                        .map(|_| scale(Scale::F16))
                        .collect(),
                    codes: (0..k).map(|_| next(1 << format.code.bits()) as u8).collect(),
                };
                let (mut codes, mut scales) = (vec![1], vec![2, 3]);
                pack_row(format, &row, &mut codes, &mut scales);
                assert_eq!(codes.len() as u32 - 1, format.code_words(k), "{format} {k}");
                assert_eq!(scales.len() as u32 - 2, format.scale_words(k), "{format} {k}");
                assert_eq!(unpack_row(format, k, &codes[1..], &scales[2..]), row, "{format} {k}");
            }
        }
    }

    #[test]
    fn scales_are_rounded() {
        let i8s = [(0.5, 0), (1.5, 2), (-1.5, -2), (2.7, 3), (-0.9, -1), (200.0, 127), (-200.0, -128)];
        for (v, want) in i8s {
            assert_eq!(decode(Scale::I8, encode(Scale::I8, v)), want as f32, "{v}");
        }
        let powers = [
            (1.0, 1.0),
            (1.49, 1.0),
            (1.5, 2.0),
            (1.51, 2.0),
            (3.0, 2.0),
            (3.01, 4.0),
            (-0.9, 1.0),
            (0.7, 0.5),
        ];
        for (v, want) in powers {
            assert_eq!(decode(Scale::E8m0, encode(Scale::E8m0, v)), want, "{v}");
        }
        for v in [f32::MAX, f32::INFINITY] {
            assert_eq!(encode(Scale::E8m0, v), 254);
        }
        assert_eq!([0.0, 2f32.powi(-127), f32::MIN_POSITIVE].map(|v| encode(Scale::E8m0, v)), [0, 0, 1]);
    }

    #[test]
    fn nibbles_lie_ready_for_dot_products() {
        let row = Row { codes: (0..8).collect(), scales: vec![1.0], ..Row::default() };
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        pack_row(Format::Q4_0, &row, &mut codes, &mut scales);
        assert_eq!((codes[0] & 0x0f0f0f0f, codes[0] >> 4 & 0x0f0f0f0f), (0x03020100, 0x07060504));
        assert_eq!(row.values(Format::Q4_0)[..3], [-8.0, -7.0, -6.0]);
    }
}

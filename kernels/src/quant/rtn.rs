//! Rounding to nearest: every format from values alone, without calibration.

use super::float;
use super::format::{Code, Format, IQ4_NL, Scale, SuperScale, Zero};
use super::pack::Row;

/// Largest f16.
const F16_MAX: f32 = 65504.0;
/// Range of the integers of QoQ's first level: what the second level makes of them stays within a byte.
const PROTECTED: f32 = 119.0;

/// Quantises a row by rounding to nearest: scales from the largest magnitude (or the range) of a group, rounded to their
/// stored type before codes are computed.
///
/// - [`Zero::Fixed`]: `s = max|w| / m`, m the largest integer on both sides of z (7, 15, 31, 127); E2M1 6, E4M3 448,
///   IQ4_NL so that the largest magnitude meets -127; E8M0 scales `2^(floor(log2 max|w|) - e)` with e = 2 for E2M1, 8 for
///   E4M3 (OCP MX), the smallest power of two that holds the group for integers.
/// - [`Zero::Point`]: `s = (hi - lo) / (2^b - 1)`, `z = round(-lo / s)` with lo <= 0 <= hi.
/// - [`Zero::Min`]: `m = min(w)` (with a second level at most 0), `s = (max(w) - m) / (2^b - 1)`.
/// - Second level: the largest scale of a super-group meets the largest value of the scale type (127, 448); integer
///   scales with points are QoQ's (first level `max|w| / 119`, integers, then scales of those).
///
/// A group of zeros is exact. Values are finite; the format is one that [`Format::check`] passes.
pub fn quantize_row(format: Format, values: &[f32]) -> Row {
    let k = values.len() as u32;
    let mut row = Row { codes: Vec::with_capacity(values.len()), ..Row::default() };
    let super_len = match format.second {
        Some(second) if second.group != Format::ROW => second.group as usize,
        _ => values.len().max(1),
    };
    let group_len = if format.group == Format::ROW { super_len } else { format.group as usize };
    for part in values.chunks(super_len) {
        let groups: Vec<&[f32]> = part.chunks(group_len).collect();
        quantize_super_group(format, &groups, &mut row);
    }
    debug_assert_eq!(row.scales.len() as u32, format.groups(k));
    row
}

/// Smallest code as an integer, and number of steps up to the largest.
fn range(code: Code) -> (f32, f32) {
    let steps = (1u32 << code.bits()) as f32 - 1.0;
    (if code == Code::Int8 { -128.0 } else { 0.0 }, steps)
}

/// Value of a scale once stored; 0 becomes 1, because its group rounds to zeros with either.
fn stored(scale: Scale, v: f32) -> f32 {
    let v = match scale {
        Scale::F32 | Scale::E8m0 => v,
        Scale::F16 => half::f16::from_f32(v.clamp(-F16_MAX, F16_MAX)).to_f32(),
        Scale::E4m3 => float::from_e4m3(float::to_e4m3(v)).unwrap_or(0.0),
        Scale::I8 => v.round_ties_even().clamp(1.0, 127.0),
    };
    if v == 0.0 { 1.0 } else { v }
}

/// Value of a zero or a minimum once stored.
fn stored_zero(scale: Scale, v: f32) -> f32 {
    match scale {
        Scale::F16 => half::f16::from_f32(v.clamp(-F16_MAX, F16_MAX)).to_f32(),
        Scale::I8 => v.round_ties_even().clamp(-128.0, 127.0),
        _ => v,
    }
}

fn amax(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |m, v| v.abs().max(m))
}

fn min_max(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::MAX, f32::MIN), |(lo, hi), &v| (v.min(lo), v.max(hi)))
}

/// `2^floor(log2 v)` of a positive normal v.
fn power_of_two(v: f32) -> f32 {
    f32::from_bits(v.to_bits() & 0x7f80_0000)
}

/// The scale with which a group around a fixed zero fits the codes, in full precision.
fn fixed_scale(format: Format, zero: u8, group: &[f32]) -> f32 {
    let largest = amax(group);
    let full = match format.code {
        Code::E2m1 => 6.0,
        Code::E4m3 => 448.0,
        Code::Iq4Nl => {
            if matches!(format.scale, Scale::E8m0 | Scale::E4m3 | Scale::I8) {
                113.0
            } else {
                let signed = group.iter().fold(0.0, |m: f32, &v| if v.abs() > m.abs() { v } else { m });
                return signed / -127.0;
            }
        }
        code => {
            let (low, steps) = range(code);
            let (below, above) = (f32::from(zero) - low, low + steps - f32::from(zero));
            if below > 0.0 && above > 0.0 { below.min(above) } else { below.max(above) }
        }
    };
    if format.scale != Scale::E8m0 || largest == 0.0 {
        return largest / full;
    }
    let scale = match format.code {
        Code::E2m1 => power_of_two(largest) / 4.0,
        Code::E4m3 => power_of_two(largest) / 256.0,
        _ => {
            let exact = largest / full;
            let below = power_of_two(exact);
            if below < exact { 2.0 * below } else { below }
        }
    };
    scale.clamp(f32::MIN_POSITIVE, power_of_two(f32::MAX))
}

/// The code of a value that is already divided by its scale.
fn encode(format: Format, zero: f32, v: f32) -> u8 {
    match format.code {
        Code::E2m1 => float::to_e2m1(v),
        Code::E4m3 => float::to_e4m3(v),
        Code::Iq4Nl => {
            let below = IQ4_NL.iter().filter(|&&t| (t as f32) < v).count();
            let distance = |i: &usize| (IQ4_NL[*i] as f32 - v).abs();
            let candidates = [below.saturating_sub(1), below.min(15)];
            let nearest = candidates.into_iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
            nearest.unwrap_or(0) as u8
        }
        code => {
            let (low, steps) = range(code);
            (v.round_ties_even() + zero).clamp(low, low + steps) as i32 as u8
        }
    }
}

fn quantize_super_group(format: Format, groups: &[&[f32]], row: &mut Row) {
    let (low, steps) = range(format.code);
    // Largest value of a scale type whose scales are multiples of a second level.
    let levels = match format.scale {
        Scale::I8 => 127.0,
        Scale::E4m3 => 448.0,
        _ => f32::INFINITY,
    };
    let second = |largest: f32| match format.second {
        None => None,
        Some(_) if levels.is_infinite() => Some(1.0),
        Some(s) => {
            let scale = if s.scale == SuperScale::F32 { Scale::F32 } else { Scale::F16 };
            Some(stored(scale, largest / levels))
        }
    };
    match format.zero {
        Zero::Fixed(zero) => {
            let scales: Vec<f32> = groups.iter().map(|g| fixed_scale(format, zero, g)).collect();
            let factor = second(amax(&scales));
            row.supers.extend(factor);
            let factor = factor.unwrap_or(1.0);
            for (group, scale) in groups.iter().zip(scales) {
                // The table of IQ4_NL has no 0: there a group of zeros needs the scale 0.
                let plain = format.code == Code::Iq4Nl && matches!(format.scale, Scale::F32 | Scale::F16);
                let store = if plain { stored_zero } else { stored };
                let scale = store(format.scale, scale / factor);
                row.scales.push(scale);
                row.codes.extend(group.iter().map(|v| encode(format, zero.into(), v / (scale * factor))));
            }
        }
        Zero::Point => {
            let integers = format.scale == Scale::I8;
            let factor = match format.second {
                Some(_) if !integers => Some(1.0),
                Some(s) => {
                    let largest = groups.iter().map(|g| amax(g)).fold(0.0, f32::max);
                    let scale = if s.scale == SuperScale::F32 { Scale::F32 } else { Scale::F16 };
                    Some(stored(scale, largest / PROTECTED))
                }
                None => None,
            };
            row.supers.extend(factor);
            for group in groups {
                let first_level = |v: f32| match factor {
                    Some(f) if integers => (v / f).round_ties_even().clamp(-PROTECTED, PROTECTED),
                    _ => v,
                };
                let group: Vec<f32> = group.iter().map(|&v| first_level(v)).collect();
                let (lo, hi) = min_max(&group);
                let (lo, hi) = (lo.min(0.0), hi.max(0.0));
                let scale = stored(format.scale, (hi - lo) / steps);
                let zero = ((-lo / scale).round_ties_even() + low).clamp(low, low + steps);
                row.scales.push(scale);
                row.zeros.push(zero);
                row.codes.extend(group.iter().map(|v| encode(format, zero, v / scale)));
            }
        }
        Zero::Min => {
            let fits: Vec<(f32, f32)> = groups
                .iter()
                .map(|g| {
                    let (lo, hi) = min_max(g);
                    let lo = if format.second.is_some() { lo.min(0.0) } else { lo };
                    ((hi - lo).max(0.0) / steps, lo)
                })
                .collect();
            let factor = second(fits.iter().map(|f| f.0).fold(0.0, f32::max));
            // Minima are negative: so is their factor, and what is stored of them is positive.
            let min_factor = second(fits.iter().map(|f| -f.1).fold(0.0, f32::max)).map(|f| -f);
            row.supers.extend(factor);
            row.super_mins.extend(min_factor);
            let (factor, min_factor) = (factor.unwrap_or(1.0), min_factor.unwrap_or(1.0));
            for (group, (scale, lo)) in groups.iter().zip(fits) {
                let scale = stored(format.scale, scale / factor);
                let step = scale * factor;
                let zero = stored_zero(format.scale, (lo - low * step) / min_factor);
                let min = zero * min_factor;
                row.scales.push(scale);
                row.zeros.push(zero);
                row.codes.extend(group.iter().map(|v| encode(format, 0.0, (v - min) / step)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{pack_row, unpack_row};

    /// The generator of section 7 of the digest: splitmix64 of a counter, uniform numbers by their upper 24 bits, normal
    /// ones by the cosine branch of Box and Muller.
    fn normal(seed: u64, len: usize) -> Vec<f32> {
        let uniform = |i: u64| {
            let mut z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (((z ^ (z >> 31)) >> 40) as f64 + 0.5) / f64::from(1 << 24)
        };
        let value = |i: u64| {
            let radius = (-2.0 * uniform(2 * i - 1).ln()).sqrt();
            (radius * (std::f64::consts::TAU * uniform(2 * i)).cos()) as f32
        };
        (1..=len as u64).map(value).collect()
    }

    fn sqnr(format: Format, values: &[f32], k: usize) -> f64 {
        let (mut signal, mut noise) = (0.0, 0.0);
        for x in values.chunks_exact(k) {
            let row = quantize_row(format, x);
            let (mut codes, mut scales) = (Vec::new(), Vec::new());
            pack_row(format, &row, &mut codes, &mut scales);
            let packed = unpack_row(format, k as u32, &codes, &scales);
            assert_eq!(packed, row, "{format}: scales are of the stored type");
            for (&x, y) in x.iter().zip(packed.values(format)) {
                signal += f64::from(x).powi(2);
                noise += (f64::from(x) - y).powi(2);
            }
        }
        10.0 * (signal / noise).log10()
    }

    #[test]
    fn errors_are_those_of_the_digest() {
        let x = normal(1, 16 * 4096);
        assert!((x[0] + 0.028_249_8).abs() < 1e-6, "{}", x[0]);
        for (format, want) in [
            (Format::symmetric(Code::Int4, 128), 18.63),
            (Format::symmetric(Code::Int4, 32), 20.26),
            (Format::symmetric(Code::Int4, Format::ROW), 16.09),
            (Format::asymmetric(Code::Int4, 128), 19.96),
            (Format::symmetric(Code::Int6, 128), 31.55),
            (Format::symmetric(Code::Int8, Format::ROW), 41.28),
            (Format::Q8_0, 45.43),
            (Format::MXFP4, 18.80),
            (Format::NVFP4, 20.44),
            (Format::QOQ, 19.87),
            (Format::fp8(Format::ROW), 31.54),
            (Format::Q4_K, 22.13),
        ] {
            let got = sqnr(format, &x, 4096);
            assert!((got - want).abs() < 0.3, "{format}: {got:.2} dB, want {want}");
        }
    }

    #[test]
    fn the_worked_example_of_qoq() {
        let w = [0.5, -0.24, 0.1, 0.02, -0.31, 0.44, 0.07, -0.12];
        let row = quantize_row(Format { group: 8, ..Format::QOQ }, &w);
        assert_eq!((row.scales, row.zeros), (vec![13.0], vec![6.0]));
        assert_eq!(row.codes, [15, 2, 8, 6, 0, 14, 7, 4]);
    }

    #[test]
    fn every_format_holds_zeros_and_odd_rows() {
        let f32_point = Format { scale: Scale::F32, ..Format::asymmetric(Code::Int4, 64) };
        let formats = [
            Format::Q4_0,
            Format::Q4_1,
            Format::Q5_0,
            Format::Q5_1,
            Format::Q8_0,
            Format::Q4_K,
            Format::Q5_K,
            Format::Q6_K,
            Format::IQ4_NL,
            Format::MXFP4,
            Format::NVFP4,
            Format::QOQ,
            Format::fp8(128),
            Format::asymmetric(Code::Int8, Format::ROW),
            f32_point,
            Format { zero: Zero::Min, ..Format::Q8_0 },
            Format { scale: Scale::E8m0, ..Format::Q8_0 },
            Format::symmetric(Code::Int4, 24),
        ];
        for format in formats {
            let zeros = quantize_row(format, &[0.0; 50]);
            assert!(zeros.values(format).iter().all(|&v| v == 0.0), "{format}");
            let got = sqnr(format, &normal(3, 10 * 50), 50);
            assert!(got > 15.0, "{format}: {got}");
            // One constant, tiny and huge values.
            for x in [[0.37; 40], [-3.0e-7; 40], [6.0e4; 40]] {
                let row = quantize_row(format, &x);
                assert!(row.values(format).iter().all(|v| v.is_finite()), "{format} {}", x[0]);
            }
        }
    }
}

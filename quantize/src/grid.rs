//! Values that the codes of a group can stand for, and how scales are chosen.

use girih_kernels::quant::{Code, Format, Row, Scale, SuperScale, Zero, float};
use half::f16;

/// How the scale of a group is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// The largest magnitude (asymmetric: the range) fits.
    Absmax,
    /// FP4: the largest magnitude becomes 6 or 4, whichever has the smaller error.
    #[cfg(test)]
    FourOrSix,
    /// Least squared error among clipped ranges (FP4: among scales on both sides).
    Search,
}

/// Nearest whole number, ties to even, for |x| < 2^22.
#[inline]
fn round(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC) - MAGIC
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Int,
    E2m1,
    E4m3,
}

/// The grid of one group: `step · q`. Integers: `q` in `lo..=hi`, stored as `q + offset`.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    kind: Kind,
    pub step: f32,
    lo: f32,
    hi: f32,
    offset: f32,
}

impl Grid {
    fn new(format: Format, scale: f32, zero: f32, second: f32) -> Self {
        let step = (f64::from(scale) * f64::from(second)) as f32;
        let (kind, levels, offset) = match (format.code, format.zero) {
            (Code::E4m3, _) => (Kind::E4m3, 0.0, 0.0),
            (Code::E2m1, _) => (Kind::E2m1, 0.0, 0.0),
            (Code::Int8, _) => (Kind::Int, 255.0, 0.0),
            (code, Zero::Fixed(z)) => (Kind::Int, (1u32 << code.bits()) as f32 - 1.0, f32::from(z)),
            (code, _) => (Kind::Int, (1u32 << code.bits()) as f32 - 1.0, zero),
        };
        let (mut lo, mut hi) = if format.code == Code::Int8 { (-128.0, 127.0) } else { (-offset, levels - offset) };
        if format.scale == Scale::I8 {
            // Two integer levels: the first one stays a signed byte.
            lo = lo.max((-128.0 / scale).ceil());
            hi = hi.min((127.0 / scale).floor());
        }
        Self { kind, step, lo, hi, offset }
    }

    /// Code nearest to `x` and its value.
    pub fn encode(&self, x: f32) -> (u8, f32) {
        if self.step == 0.0 {
            return (self.offset as u8, 0.0);
        }
        let v = x / self.step;
        match self.kind {
            Kind::Int => {
                let q = round(v.max(self.lo).min(self.hi));
                ((q + self.offset) as i32 as u8, q * self.step)
            }
            Kind::E2m1 => {
                let code = float::to_e2m1(v);
                (code, 0.5 * float::e2m1_doubled(code) as f32 * self.step)
            }
            Kind::E4m3 => {
                let code = float::to_e4m3(v);
                (code, float::from_e4m3(code).unwrap_or(0.0) * self.step)
            }
        }
    }

    /// Squared error of rounding `values`.
    fn error(&self, values: &[f32]) -> f32 {
        if self.step == 0.0 {
            return values.iter().map(|v| v * v).sum();
        }
        let (step, inverse, lo, hi) = (self.step, 1.0 / self.step, self.lo, self.hi);
        match self.kind {
            Kind::Int => sum_lanes(values, |x| {
                let d = x - round((x * inverse).max(lo).min(hi)) * step;
                d * d
            }),
            Kind::E2m1 => {
                let inverse = inverse.abs();
                sum_lanes(values, |x| {
                    let a = (x.abs() * inverse).min(6.0);
                    // Spacing of the codes around a, and its inverse.
                    let (up, down) = if a < 2.0 {
                        (0.5, 2.0)
                    } else if a < 4.0 {
                        (1.0, 1.0)
                    } else {
                        (2.0, 0.5)
                    };
                    let d = x.abs() - round(a * down) * up * step;
                    d * d
                })
            }
            Kind::E4m3 => values.iter().map(|x| (x - self.encode(*x).1).powi(2)).sum(),
        }
    }
}

/// Sum of `f` in eight lanes.
#[inline]
fn sum_lanes(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; 8];
    let chunks = values.chunks_exact(8);
    let rest: f32 = chunks.remainder().iter().map(|v| f(*v)).sum();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += f(*v);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

fn to_f16(x: f32) -> f32 {
    f16::from_f32(x.clamp(-65504.0, 65504.0)).to_f32()
}

fn amax(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |m, v| m.max(v.abs()))
}

/// Shares of the range that are tried, the whole range first.
fn shares(rule: Rule, step: f32, count: u32) -> impl Iterator<Item = f32> {
    let count = if rule == Rule::Search { count } else { 1 };
    (0..count).map(move |i| 1.0 - step * i as f32)
}

/// Range of `values`, with 0 in it.
fn range(values: &[f32]) -> (f32, f32) {
    values.iter().fold((0.0, 0.0), |(lo, hi), &v| (v.min(lo), v.max(hi)))
}

/// Scale (as the format stores it) and zero of a group, under a second-level scale `second`.
fn fit_group(format: Format, values: &[f32], rule: Rule, second: f32) -> (f32, f32) {
    let mut best = (f32::INFINITY, 1.0, 0.0);
    let mut consider = |scale: f32, zero: f32| {
        let error = Grid::new(format, scale, zero, second).error(values);
        if error < best.0 {
            best = (error, scale, zero);
        }
    };
    let amax = amax(values);
    match (format.code, format.zero) {
        (_, Zero::Point | Zero::Min) => {
            let levels = (1u32 << format.code.bits()) as f32 - 1.0;
            let (lo, hi) = range(values);
            for share in shares(rule, 0.0125, 48) {
                let (lo, hi) = (lo * share / second, hi * share / second);
                let scale = match format.scale {
                    Scale::I8 => ((hi - lo) / levels).round_ties_even().clamp(1.0, 127.0),
                    _ if hi == lo => 1.0,
                    _ => to_f16((hi - lo) / levels),
                };
                let zero = if scale == 0.0 { 0.0 } else { (-lo / scale).round_ties_even().clamp(0.0, levels) };
                consider(scale, zero);
            }
        }
        (Code::E2m1, _) if format.scale == Scale::E8m0 => {
            // Not below the smallest normal power: kernels read 2^-127 as 0.
            let exponent = if amax == 0.0 { 0 } else { (amax.to_bits() >> 23) as i32 - 127 };
            let down = if rule == Rule::Search { [-2, -3, -1].as_slice() } else { &[-2] };
            for d in down {
                consider(2f32.powi((exponent + d).clamp(-126, 127)), 0.0);
            }
        }
        (Code::E2m1, _) => {
            let scale = |share: f32| {
                let exact = amax * share / 6.0 / second;
                if format.scale == Scale::E4m3 {
                    float::from_e4m3(float::to_e4m3(exact)).unwrap_or(0.0)
                } else {
                    exact
                }
            };
            let more: &[f32] = match rule {
                Rule::Search => &[1.25, 1.5],
                #[cfg(test)]
                Rule::FourOrSix => &[1.5],
                _ => &[],
            };
            for share in shares(rule, 0.016, 30).chain(more.iter().copied()) {
                consider(scale(share), 0.0);
            }
        }
        (Code::E4m3, _) => consider(if amax == 0.0 { 1.0 } else { amax / 448.0 }, 0.0),
        _ if amax == 0.0 => consider(1.0, 0.0),
        (code, _) => {
            let top = (1u32 << (code.bits() - 1)) as f32 - 1.0;
            let (step, count) = if code == Code::Int8 { (0.01, 20) } else { (0.0125, 56) };
            let (lo, hi) = range(values);
            // The code -top - 1 for the largest magnitude, whatever its sign.
            let signed = if hi > -lo { -hi } else { -lo };
            for share in shares(rule, step, count) {
                consider(to_f16(amax * share / top), 0.0);
                if rule == Rule::Search {
                    consider(to_f16(signed * share / (top + 1.0)), 0.0);
                }
            }
        }
    }
    (best.1, best.2)
}

/// Scales of both levels and zeros of a row; its codes are left empty.
pub fn fit_row(format: Format, values: &[f32], rule: Rule) -> Row {
    let mut row = Row::default();
    let second = format.second.map(|second| {
        let amax = amax(values);
        let exact = match second.scale {
            // Room for scales 1.5 times that of the largest magnitude, if such are tried.
            SuperScale::F32 => {
                let largest = if rule == Rule::Absmax { 448.0 } else { 256.0 };
                (amax / (6.0 * largest)).max(f32::MIN_POSITIVE)
            }
            SuperScale::F16 => to_f16(amax / 119.0),
        };
        if amax == 0.0 || exact == 0.0 { 1.0 } else { exact }
    });
    let group = if format.group == Format::ROW { values.len().max(1) } else { format.group as usize };
    for values in values.chunks(group) {
        let (scale, zero) = fit_group(format, values, rule, second.unwrap_or(1.0));
        row.scales.push(scale);
        if format.has_zero() {
            row.zeros.push(zero);
        }
    }
    row.supers.extend(second);
    row
}

/// The grid of each group of a row.
pub fn grids(format: Format, row: &Row) -> Vec<Grid> {
    let second = row.supers.first().copied().unwrap_or(1.0);
    let grid = |(g, scale): (usize, &f32)| {
        Grid::new(format, *scale, row.zeros.get(g).copied().unwrap_or(0.0), second)
    };
    row.scales.iter().enumerate().map(grid).collect()
}

/// Rounds a row to its nearest codes; `values` become what the codes stand for.
pub fn round_row(format: Format, row: &mut Row, values: &mut [f32]) {
    let group = if format.group == Format::ROW { values.len().max(1) } else { format.group as usize };
    row.codes.clear();
    for (grid, values) in grids(format, row).into_iter().zip(values.chunks_mut(group)) {
        for v in values {
            let (code, value) = grid.encode(*v);
            row.codes.push(code);
            *v = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn all_formats() -> Vec<Format> {
        let mut all = vec![Format::MXFP4, Format::NVFP4, Format::QOQ, Format::fp8(0), Format::fp8(128)];
        for group in [Format::ROW, 32, 128] {
            all.push(Format::symmetric(Code::Int4, group));
            all.push(Format::asymmetric(Code::Int4, group));
            all.push(Format::symmetric(Code::Int8, group));
        }
        all
    }

    /// What the rounding returns is what the format defines, searched scales are no worse, extreme rows survive.
    #[test]
    fn values_are_those_of_the_format() {
        let mut random = Random::new(5);
        for format in all_formats() {
            for k in [8, 30, 130, 256] {
                let normal: Vec<f32> = (0..k).map(|_| random.normal() as f32).collect();
                let rows = [
                    normal.clone(),
                    vec![0.0; k],
                    vec![3.0; k],
                    normal.iter().map(|v| v * 1e-3).collect(),
                    normal.iter().map(|v| v.abs() * 1e3).collect(),
                    normal.iter().enumerate().map(|(i, v)| if i < k / 2 { 0.0 } else { -v.abs() }).collect(),
                ];
                for values in rows {
                    let error = |rule| {
                        let mut rounded = values.clone();
                        let mut row = fit_row(format, &values, rule);
                        round_row(format, &mut row, &mut rounded);
                        for (a, b) in rounded.iter().zip(row.values(format)) {
                            assert!((f64::from(*a) - b).abs() <= 1e-6 * b.abs(), "{format}: {a} {b}");
                        }
                        values.iter().zip(&rounded).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
                    };
                    let (absmax, search) = (error(Rule::Absmax), error(Rule::Search));
                    assert!(search <= absmax * 1.0001, "{format} {k}: {search} {absmax}");
                    let power: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
                    assert!(search <= 0.1 * power, "{format} {k}: {search} of {power}");
                }
            }
        }
    }

    #[test]
    fn qoq_worked_example() {
        let values = [0.5, -0.24, 0.1, 0.02, -0.31, 0.44, 0.07, -0.12];
        let mut row = fit_row(Format::QOQ, &values, Rule::Absmax);
        round_row(Format::QOQ, &mut row, &mut values.clone());
        assert_eq!((row.scales[0], row.zeros[0], row.supers[0]), (13.0, 6.0, to_f16(0.5 / 119.0)));
        assert_eq!(row.codes, [15, 2, 8, 6, 0, 14, 7, 4]);
    }

    /// Whatever the range of a group, every code that can be chosen is a signed byte on the first level; and for
    /// values inside of the range the bound is never needed (that is what 119 is for).
    #[test]
    fn qoq_protective_range() {
        for lo in -119i32..=0 {
            for hi in 0..=119i32 {
                let scale = ((hi - lo) as f32 / 15.0).round_ties_even().clamp(1.0, 127.0);
                let zero = (-lo as f32 / scale).round_ties_even().clamp(0.0, 15.0);
                let grid = Grid::new(Format::QOQ, scale, zero, 1.0);
                for x in [lo as f32, hi as f32, -1e4, 1e4] {
                    let (code, value) = grid.encode(x);
                    assert!(code < 16 && (-128.0..=127.0).contains(&value), "{lo} {hi}: {value}");
                    if x.abs() <= 119.0 {
                        let free = (x / scale).round_ties_even().clamp(-zero, 15.0 - zero) * scale;
                        assert_eq!(free, value, "{lo} {hi}");
                    }
                }
            }
        }
    }

    #[test]
    fn mxfp4_example() {
        let mut values = [7.0, -5.0, 3.5, 2.5, 1.75, -0.9, 0.3, 0.1];
        let mut row = fit_row(Format::MXFP4, &values, Rule::Absmax);
        round_row(Format::MXFP4, &mut row, &mut values);
        assert_eq!(values, [6.0, -4.0, 4.0, 2.0, 2.0, -1.0, 0.5, 0.0]);
    }
}

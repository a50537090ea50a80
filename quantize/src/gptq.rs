//! GPTQ (Frantar et al. 2023) with static groups and activation order: codes are chosen channel by channel, the
//! largest inputs first, and what rounding does to the product is made up for by the channels that follow. Scales are
//! those of the weights before; so nothing is permuted at run time.

use girih_kernels::quant::{Format, Row};

use crate::grid::{self, Rule};
use crate::linear::Rounded;
use crate::{QuantizeError, parallel};

/// Columns (of the factorisation, of the updates) that are worked on together.
const BLOCK: usize = 64;
/// Rows of weights that share a pass over the factor.
const ROWS: usize = 16;
/// Share of the mean of the diagonal that is added to it.
const DAMPING: f64 = 0.01;

/// Order of the channels and the upper triangular U with `UᵀU = H⁻¹` in that order.
pub struct Factor {
    order: Vec<usize>,
    u: Vec<f32>,
    /// What was added to the diagonal.
    #[cfg(test)]
    damping: f64,
}

impl Factor {
    /// From second moments `[k, k]`. Channels that were never active get the mean of the diagonal, so their weights
    /// are rounded to nearest. Damping grows tenfold until there is a factor.
    pub fn new(hessian: Vec<f32>, k: usize, act_order: bool) -> Result<Self, QuantizeError> {
        let diagonal: Vec<f64> = (0..k).map(|i| f64::from(hessian[i * k + i])).collect();
        let alive = diagonal.iter().filter(|d| **d > 0.0).count();
        let mean = if alive == 0 { 1.0 } else { diagonal.iter().sum::<f64>() / alive as f64 };
        let diagonal: Vec<f64> = diagonal.iter().map(|d| if *d > 0.0 { *d } else { mean }).collect();
        let mut order: Vec<usize> = (0..k).collect();
        if act_order {
            order.sort_by(|a, b| diagonal[*b].total_cmp(&diagonal[*a]));
        }
        for step in 0..5 {
            let damping = DAMPING * mean * 10f64.powi(step);
            // In reverse order, so that the lower factor of this gives the upper one of the inverse.
            let mut lower = vec![0f64; k * k];
            parallel::for_rows(&mut lower, k, |first, rows| {
                for (r, row) in rows.chunks_exact_mut(k).enumerate() {
                    let i = order[k - 1 - first - r];
                    for (v, &j) in row.iter_mut().zip(order.iter().rev()) {
                        *v = if i == j { diagonal[i] + damping } else { f64::from(hessian[i * k + j]) };
                    }
                }
            });
            if cholesky(&mut lower, k) {
                drop(hessian);
                let u = flipped_inverse(lower, k);
                return Ok(Self {
                    order,
                    u,
                    #[cfg(test)]
                    damping,
                });
            }
        }
        Err(QuantizeError::Singular { what: "second moments of the inputs", n: k })
    }

    /// Rounds all rows of a matrix. `power`: mean squares of the inputs.
    pub fn round(&self, format: Format, weight: &[f32], power: &[f32], rule: Rule) -> Rounded {
        let k = power.len();
        let n = weight.len() / k;
        let tiles = parallel::map(n.div_ceil(ROWS), |tile| {
            let rows: Vec<&[f32]> = weight[tile * ROWS * k..].chunks_exact(k).take(ROWS).collect();
            let mut fitted: Vec<Row> =
                rows.iter().map(|row| grid::fit_row(format, row, power, rule)).collect();
            let values = self.round_tile(format, &rows, &mut fitted, k);
            (fitted, values)
        });
        let mut rounded = Rounded { rows: Vec::with_capacity(n), values: Vec::with_capacity(weight.len()) };
        for (rows, values) in tiles {
            rounded.rows.extend(rows);
            rounded.values.extend(values);
        }
        rounded
    }

    fn round_tile(&self, format: Format, rows: &[&[f32]], fitted: &mut [Row], k: usize) -> Vec<f32> {
        let group = if format.group == Format::ROW { k } else { format.group as usize };
        let grids: Vec<_> = fitted.iter().map(|row| grid::grids(format, row)).collect();
        let mut w: Vec<f32> = rows.iter().flat_map(|row| self.order.iter().map(|&j| row[j])).collect();
        let mut values = vec![0f32; w.len()];
        for row in &mut *fitted {
            row.codes = vec![0; k];
        }
        let mut errors = vec![[0f32; BLOCK]; rows.len()];
        for start in (0..k).step_by(BLOCK) {
            let end = (start + BLOCK).min(k);
            for i in start..end {
                let channel = self.order[i];
                let u = &self.u[i * k..][..k];
                for (r, w) in w.chunks_exact_mut(k).enumerate() {
                    let (code, value) = grids[r][channel / group].encode(w[i]);
                    fitted[r].codes[channel] = code;
                    values[r * k + channel] = value;
                    let error = (w[i] - value) / u[i];
                    errors[r][i - start] = error;
                    w[i + 1..end].iter_mut().zip(&u[i + 1..end]).for_each(|(w, u)| *w -= error * u);
                }
            }
            for i in (start..end).step_by(4) {
                let u = |d: usize| &self.u[(i + d).min(end - 1) * k..][end..k];
                let (ua, ub, uc, ud) = (u(0), u(1), u(2), u(3));
                for (r, w) in w.chunks_exact_mut(k).enumerate() {
                    let e = |d: usize| if i + d < end { errors[r][i + d - start] } else { 0.0 };
                    let (ea, eb, ec, ed) = (e(0), e(1), e(2), e(3));
                    let u = ua.iter().zip(ub).zip(uc.iter().zip(ud));
                    for (w, ((ua, ub), (uc, ud))) in w[end..].iter_mut().zip(u) {
                        *w -= (ea * ua + eb * ub) + (ec * uc + ed * ud);
                    }
                }
            }
        }
        values
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0f64; 8];
    let (x, y) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = x.remainder().iter().zip(y.remainder()).map(|(a, b)| a * b).sum();
    for (x, y) in x.zip(y) {
        for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += x * y;
        }
    }
    lanes.iter().sum::<f64>() + rest
}

/// Lower factor L with `L Lᵀ = a`, in the lower triangle of a; false if a is not positive definite.
fn cholesky(a: &mut [f64], k: usize) -> bool {
    for start in (0..k).step_by(BLOCK) {
        let end = (start + BLOCK).min(k);
        let panel = a[start * k..end * k].to_vec();
        parallel::for_rows(&mut a[start * k..], k, |first, rows| {
            for (r, row) in rows.chunks_exact_mut(k).enumerate() {
                for j in start..end.min(start + first + r + 1) {
                    row[j] -= dot(&row[..start], &panel[(j - start) * k..][..start]);
                }
            }
        });
        let eliminate = |row: &mut [f64], above: &[f64], columns: std::ops::Range<usize>| {
            for j in columns {
                let l = &above[(j - start) * k..][..k];
                row[j] = (row[j] - dot(&row[start..j], &l[start..j])) / l[j];
            }
        };
        for i in start..end {
            let (above, rest) = a[start * k..].split_at_mut((i - start) * k);
            let row = &mut rest[..k];
            eliminate(row, above, start..i);
            let pivot = row[i] - dot(&row[start..i], &row[start..i]);
            if pivot.is_nan() || pivot <= 0.0 {
                return false;
            }
            row[i] = pivot.sqrt();
        }
        let (above, below) = a.split_at_mut(end * k);
        let above = &above[start * k..];
        parallel::for_rows(below, k, |_, rows| {
            rows.chunks_exact_mut(k).for_each(|row| eliminate(row, above, start..end));
        });
    }
    true
}

/// The inverse of a lower triangular matrix with rows and columns in reverse order: upper triangular.
fn flipped_inverse(lower: Vec<f64>, k: usize) -> Vec<f32> {
    let blocks = parallel::map(k.div_ceil(BLOCK), |block| {
        let start = block * BLOCK;
        let width = BLOCK.min(k - start);
        let mut inverse = vec![0f64; (k - start) * width];
        for i in start..k {
            let (above, rest) = inverse.split_at_mut((i - start) * width);
            let row = &mut rest[..width];
            if i < start + width {
                row[i - start] = 1.0;
            }
            for (f, m) in lower[i * k + start..i * k + i].iter().zip(above.chunks_exact(width)) {
                row.iter_mut().zip(m).for_each(|(v, m)| *v -= f * m);
            }
            let pivot = lower[i * k + i];
            for v in row {
                *v /= pivot;
            }
        }
        inverse
    });
    // K² doubles: not beside the result.
    drop(lower);
    let mut flipped = vec![0f32; k * k];
    for (block, inverse) in blocks.iter().enumerate() {
        let start = block * BLOCK;
        let width = BLOCK.min(k - start);
        for (r, row) in inverse.chunks_exact(width).enumerate() {
            for (c, v) in row.iter().enumerate() {
                flipped[(k - 1 - start - r) * k + (k - 1 - start - c)] = *v as f32;
            }
        }
    }
    flipped
}

#[cfg(test)]
mod tests {
    use girih_kernels::quant::Code;

    use super::*;
    use crate::InputStats;
    use crate::random::Random;

    /// H = [[2, 1], [1, 2]], w = [0.7, 0.2], step 0.5: U and the codes by hand.
    #[test]
    fn hand_case() {
        let mut lower = vec![2.0, 1.0, 1.0, 2.0];
        assert!(cholesky(&mut lower, 2));
        let u = flipped_inverse(lower, 2);
        for (u, want) in u.iter().zip([1.5f32.sqrt().recip(), -6f32.sqrt().recip(), 0.0, 0.5f32.sqrt()]) {
            assert!((u - want).abs() < 1e-5, "{u} {want}");
        }
        let factor = Factor { order: vec![0, 1], u, damping: 0.0 };
        let format = Format { group: Format::ROW, ..Format::Q4_0 };
        let mut fitted = [Row { scales: vec![0.5], ..Row::default() }];
        assert_eq!(factor.round_tile(format, &[&[0.7, 0.2]], &mut fitted, 2), [0.5, 0.5]);
        assert_eq!(fitted[0].codes, [9, 9]);
    }

    fn correlated(k: usize, rows: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed);
        let mut basis = Random::new(999);
        let v: Vec<f64> = (0..k * 16).map(|_| basis.normal()).collect();
        let scales: Vec<f64> = (0..k).map(|_| (0.7 * basis.normal()).exp()).collect();
        let mut x = Vec::with_capacity(rows * k);
        for _ in 0..rows {
            let u: Vec<f64> = (0..16).map(|_| random.normal()).collect();
            for j in 0..k {
                let common: f64 = u.iter().zip(&v[16 * j..]).map(|(u, v)| u * v).sum();
                x.push(((random.normal() + 0.5 * common) * scales[j]) as f32);
            }
        }
        x
    }

    /// The error `(w - ŵ) H (w - ŵ)ᵀ` with damped H is `Σ e²` of the steps: the factor and the updates are right.
    /// And GPTQ is better than rounding to nearest, activation order better than none.
    #[test]
    fn loss_identity_and_order_of_methods() {
        let (k, n) = (200, 24);
        let mut stats = InputStats::new(k, true, 0, 0);
        stats.add(&correlated(k, 400, 1));
        let hessian = stats.hessian.expect("it was wanted");
        let mut random = Random::new(2);
        let weight: Vec<f32> = (0..n * k).map(|_| random.normal() as f32).collect();
        for format in
            [Format::symmetric(Code::Int4, 128), Format::Q4_0, Format::MXFP4, Format::NVFP4, Format::QOQ]
        {
            let loss = |values: &[f32], damping: f64| {
                let mut sum = 0.0;
                for (w, v) in weight.chunks_exact(k).zip(values.chunks_exact(k)) {
                    let d: Vec<f64> = w.iter().zip(v).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
                    for i in 0..k {
                        let h: f64 = d.iter().zip(&hessian[i * k..]).map(|(d, h)| d * f64::from(*h)).sum();
                        sum += d[i] * (h + damping * d[i]);
                    }
                }
                sum
            };
            let nearest = crate::linear::round_nearest(format, &weight, &vec![1.0; k], Rule::Absmax);
            let mut losses = vec![loss(&nearest.values, 0.0)];
            for act_order in [false, true] {
                let factor = Factor::new(hessian.clone(), k, act_order).expect("a factor");
                let rounded = factor.round(format, &weight, &vec![1.0; k], Rule::Absmax);
                let mut steps = 0.0;
                let mut strays = 0;
                for (r, (w, v)) in weight.chunks_exact(k).zip(rounded.values.chunks_exact(k)).enumerate() {
                    let group = if format.group == Format::ROW { k } else { format.group as usize };
                    let grids = grid::grids(format, &rounded.rows[r]);
                    // e = (w - ŵ) R with R = U⁻¹, solved from e U = (w - ŵ) in the order of the channels.
                    let mut e = vec![0f64; k];
                    for j in 0..k {
                        let c = factor.order[j];
                        let known: f64 = (0..j).map(|i| e[i] * f64::from(factor.u[i * k + j])).sum();
                        let nearest = grids[c / group].encode((f64::from(w[c]) - known) as f32).1;
                        strays += u32::from(nearest != v[c]); // where f32 and f64 disagree about a tie
                        e[j] = (f64::from(w[c]) - f64::from(v[c]) - known) / f64::from(factor.u[j * k + j]);
                    }
                    steps += e.iter().map(|e| e * e).sum::<f64>();
                }
                assert!(strays < 10, "{format}: {strays}");
                let damped = loss(&rounded.values, factor.damping);
                assert!((steps / damped - 1.0).abs() < 1e-3, "{format}: {steps} {damped}");
                for (row, v) in rounded.rows.iter().zip(rounded.values.chunks_exact(k)) {
                    let close = |(a, b): (&f32, f64)| (f64::from(*a) - b).abs() <= 1e-6 * b.abs();
                    assert!(v.iter().zip(row.values(format)).all(close), "{format}");
                }
                losses.push(loss(&rounded.values, 0.0));
            }
            println!("{format}: nearest, GPTQ, act order: {losses:?}");
            assert!(losses[1] < 0.9 * losses[0] && losses[2] < losses[1], "{format}: {losses:?}");
        }
    }

    #[test]
    fn dead_channels_and_singular_moments() {
        let k = 40;
        let mut stats = InputStats::new(k, true, 0, 0);
        let row: Vec<f32> = (0..k).map(|j| if j % 7 == 0 { 0.0 } else { 1.0 + j as f32 }).collect();
        stats.add(&row); // rank 1
        let hessian = stats.hessian.expect("it was wanted");
        let factor = Factor::new(hessian.clone(), k, true).expect("a factor");
        let weight: Vec<f32> = (0..k).map(|j| (j as f32).sin()).collect();
        let rounded = factor.round(Format::Q4_0, &weight, &vec![1.0; k], Rule::Absmax);
        let nearest = crate::linear::round_nearest(Format::Q4_0, &weight, &vec![1.0; k], Rule::Absmax);
        let alike = |j: usize| rounded.values[j] == nearest.values[j];
        assert!((0..k).step_by(7).all(alike) && rounded.values.iter().all(|v| v.is_finite()));
        assert!(Factor::new(vec![0.0; 16], 4, true).is_ok());
        assert!(Factor::new(vec![1.0, 1e9, 1e9, 1.0], 2, true).is_err());
    }
}

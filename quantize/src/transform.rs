//! Transforms of inputs and their inverses on weights: `x' = mix(scale · x)`, `W'` so that `x' W'ᵀ = x Wᵀ`. All
//! folding is in f64, from the values of scale and mix that the run-time kernels see.

use girih_kernels::quant::HadamardPlan;
use girih_kernels::quant::hadamard;
use girih_kernels::quant::kronecker::{inverse, transposed};

use crate::{QuantizeError, parallel};

/// What mixes the channels of an input.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum HostMix {
    /// Nothing.
    #[default]
    None,
    /// `x Hᵀ / √n` in runs of `block` channels.
    Hadamard {
        /// Channels of a run; 0 for the whole row.
        block: u32,
    },
    /// Each row as X `[n1, n2]`: `P1ᵀ X P2`.
    Kronecker {
        /// Rows of X.
        n1: u32,
        /// Columns of X.
        n2: u32,
        /// `[n1, n1]`.
        p1: Vec<f32>,
        /// `[n2, n2]`.
        p2: Vec<f32>,
    },
}

impl HostMix {
    /// The Hadamard mix of the whole row, or of the largest runs that `k` channels consist of and that have a
    /// construction.
    pub(crate) fn hadamard(k: usize) -> Self {
        let k = k as u32;
        if k > 1 && hadamard::plan(k).is_some() {
            return Self::Hadamard { block: 0 };
        }
        let block = (2..=k / 2).rev().find(|b| k.is_multiple_of(*b) && hadamard::plan(*b).is_some());
        block.map_or(Self::None, |block| Self::Hadamard { block })
    }

    /// The Hadamard mix of runs of `block` channels, or of the largest shorter power of two that divides `k`.
    pub(crate) fn hadamard_blocks(k: usize, block: u32) -> Self {
        let block = block.min(1 << (k as u32).trailing_zeros().min(31));
        if block < 2 { Self::None } else { Self::Hadamard { block } }
    }
}

#[derive(Clone, Debug)]
enum Prepared {
    None,
    Hadamard(HadamardPlan),
    /// Input: `a1 X a2`; weight: `b1 W b2`.
    Kronecker {
        n1: usize,
        n2: usize,
        a: [Vec<f64>; 2],
        b: [Vec<f64>; 2],
        condition: f64,
    },
}

/// Channel scale and mix, with what their inverses need.
#[derive(Clone, Debug)]
pub struct Transformer {
    k: usize,
    scale: Option<Vec<f32>>,
    mix: HostMix,
    prepared: Prepared,
}

/// Rows that are transformed together.
const BATCH: usize = 16;

impl Transformer {
    pub fn new(k: usize, scale: Option<Vec<f32>>, mix: HostMix) -> Result<Self, QuantizeError> {
        let singular = |what, n| QuantizeError::Singular { what, n };
        let prepared = match &mix {
            HostMix::None => Prepared::None,
            HostMix::Hadamard { block } => {
                let n = if *block == 0 { k as u32 } else { *block };
                let plan = hadamard::plan(n).ok_or_else(|| singular("Hadamard matrix", n as usize))?;
                Prepared::Hadamard(plan)
            }
            HostMix::Kronecker { n1, n2, p1, p2 } => {
                let (n1, n2) = (*n1 as usize, *n2 as usize);
                let wide = |p: &[f32]| p.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
                let (p1, p2) = (wide(p1), wide(p2));
                let inverted = |p: &[f64], n| inverse(p, n).map_err(|_| singular("Kronecker factor", n));
                let (i1, i2) = (inverted(&p1, n1)?, inverted(&p2, n2)?);
                let condition = condition(&p1, &i1, n1) * condition(&p2, &i2, n2);
                let a = [transposed(&p1, n1), p2];
                let b = [i1, transposed(&i2, n2)];
                Prepared::Kronecker { n1, n2, a, b, condition }
            }
        };
        Ok(Self { k, scale, mix, prepared })
    }

    pub fn parts(self) -> (Option<Vec<f32>>, HostMix) {
        (self.scale, self.mix)
    }

    /// Condition number in the 2-norm; with scale and mix the product of theirs, which bounds it.
    pub fn condition(&self) -> f64 {
        let scale = self.scale.as_ref().map_or(1.0, |scale| {
            let (lo, hi) =
                scale.iter().fold((f32::MAX, 0f32), |(lo, hi), s| (lo.min(s.abs()), hi.max(s.abs())));
            f64::from(hi) / f64::from(lo)
        });
        scale * if let Prepared::Kronecker { condition, .. } = &self.prepared { *condition } else { 1.0 }
    }

    fn mix(&self, rows: &mut [f64], weight: bool) {
        match &self.prepared {
            Prepared::None => {}
            Prepared::Hadamard(plan) => plan.apply(rows, false),
            Prepared::Kronecker { n1, n2, a, b, .. } => {
                let [left, right] = if weight { b } else { a };
                rows.chunks_exact_mut(self.k).for_each(|row| sandwich(row, left, right, *n1, *n2));
            }
        }
    }

    fn scale(&self, rows: &mut [f64], weight: bool) {
        let Some(scale) = &self.scale else { return };
        for row in rows.chunks_exact_mut(self.k) {
            for (v, s) in row.iter_mut().zip(scale) {
                let s = f64::from(*s);
                *v = if weight { *v / s } else { *v * s };
            }
        }
    }

    /// Rows through the transform of inputs, or of weights.
    fn rows(&self, rows: &mut [f32], weight: bool) {
        if self.scale.is_none() && self.mix == HostMix::None {
            return;
        }
        parallel::for_rows(rows, self.k, |_, part| {
            for batch in part.chunks_mut(BATCH * self.k) {
                let mut wide: Vec<f64> = batch.iter().map(|v| f64::from(*v)).collect();
                self.scale(&mut wide, weight);
                self.mix(&mut wide, weight);
                batch.iter_mut().zip(&wide).for_each(|(v, w)| *v = *w as f32);
            }
        });
    }

    /// `x'` of rows.
    pub fn inputs(&self, rows: &[f32]) -> Vec<f32> {
        let mut rows = rows.to_vec();
        self.rows(&mut rows, false);
        rows
    }

    /// `W'` of rows.
    pub fn weights(&self, rows: &[f32]) -> Vec<f32> {
        let mut rows = rows.to_vec();
        self.rows(&mut rows, true);
        rows
    }

    /// `Σ x'ᵀx'` from `Σ xᵀx`.
    pub fn second_moments(&self, hessian: &[f32]) -> Vec<f32> {
        let mut h = self.inputs(hessian);
        if self.scale.is_some() || self.mix != HostMix::None {
            let k = self.k;
            for i in 0..k {
                for j in 0..i {
                    h.swap(i * k + j, j * k + i);
                }
            }
            self.rows(&mut h, false);
        }
        h
    }
}

/// `row = left · X · right` with X `[n1, n2]`.
fn sandwich(row: &mut [f64], left: &[f64], right: &[f64], n1: usize, n2: usize) {
    let mut half = vec![0f64; n1 * n2];
    for (x, y) in row.chunks_exact(n2).zip(half.chunks_exact_mut(n2)) {
        for (f, r) in x.iter().zip(right.chunks_exact(n2)) {
            y.iter_mut().zip(r).for_each(|(y, r)| *y += f * r);
        }
    }
    for (l, y) in left.chunks_exact(n1).zip(row.chunks_exact_mut(n2)) {
        y.fill(0.0);
        for (f, h) in l.iter().zip(half.chunks_exact(n2)) {
            y.iter_mut().zip(h).for_each(|(y, h)| *y += f * h);
        }
    }
}

/// Condition number in the 2-norm of a matrix and its inverse, by power iteration.
pub fn condition(a: &[f64], a_inverse: &[f64], n: usize) -> f64 {
    let norm = |a: &[f64]| {
        let mut v: Vec<f64> = (0..n).map(|i| 1.0 + 0.5 * (i as f64 * 1.7).sin()).collect();
        let mut norm = 0.0;
        for _ in 0..60 {
            let u: Vec<f64> =
                a.chunks_exact(n).map(|row| row.iter().zip(&v).map(|(a, v)| a * v).sum()).collect();
            v.fill(0.0);
            for (row, u) in a.chunks_exact(n).zip(&u) {
                v.iter_mut().zip(row).for_each(|(v, a)| *v += a * u);
            }
            let length = v.iter().map(|v| v * v).sum::<f64>().sqrt();
            for v in &mut v {
                *v /= length.max(f64::MIN_POSITIVE);
            }
            norm = length.sqrt();
        }
        norm
    };
    norm(a) * norm(a_inverse)
}

/// `s_j = √(rms(W_j) / rms(X_j))`, which gives both sides the same profile over channels: after a rotation the error of
/// a product is proportional to `‖X S‖ · ‖W S⁻¹‖`, least there. Within 1000 of the geometric mean, which is made 1;
/// channels that are always 0 on a side have 1.
pub fn balance(weights: &[&[f32]], sum_sq: &[f64], rows: u64) -> Vec<f32> {
    let k = sum_sq.len();
    let mut power = vec![0f64; k];
    let mut count = 0;
    for weight in weights {
        for row in weight.chunks_exact(k) {
            power.iter_mut().zip(row).for_each(|(p, w)| *p += f64::from(*w) * f64::from(*w));
            count += 1;
        }
    }
    let (count, rows) = (f64::from(count).max(1.0), (rows as f64).max(1.0));
    let log =
        |(w, x): (&f64, &f64)| (*w > 0.0 && *x > 0.0).then(|| 0.25 * ((w / count).ln() - (x / rows).ln()));
    let logs: Vec<Option<f64>> = power.iter().zip(sum_sq).map(log).collect();
    let known = logs.iter().flatten().count().max(1) as f64;
    let mean = logs.iter().flatten().sum::<f64>() / known;
    let bound = 1000f64.ln();
    logs.iter().map(|l| l.map_or(1.0, |l| (l - mean).clamp(-bound, bound).exp() as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure;
    use crate::random::Random;

    #[test]
    fn products_stay() {
        let mut random = Random::new(21);
        for k in [6, 32, 48, 90, 96] {
            let mut normal = |n: usize| (0..n).map(|_| random.normal() as f32).collect::<Vec<f32>>();
            let (x, w) = (normal(5 * k), normal(7 * k));
            let scale: Vec<f32> = normal(k).iter().map(|v| v.exp()).collect();
            let (n1, n2) = (2, k / 2);
            let kronecker = HostMix::Kronecker { n1, n2: n2 as u32, p1: normal(4), p2: normal(n2 * n2) };
            for mix in [HostMix::None, HostMix::hadamard(k), HostMix::hadamard_blocks(k, 32), kronecker] {
                let t = Transformer::new(k, Some(scale.clone()), mix).expect("it is invertible");
                let exact = measure::product(&x, &w, k);
                let (signal, noise) =
                    measure::energies(&exact, &measure::product(&t.inputs(&x), &t.weights(&w), k));
                assert!(measure::decibels(signal, noise) > 80.0, "{k}: {t:?}");
                let mut stats = crate::InputStats::new(k, true, 0, 0);
                stats.add(&x);
                let mut after = crate::InputStats::new(k, true, 0, 0);
                after.add(&t.inputs(&x));
                let moved = t.second_moments(&stats.hessian.expect("it was wanted"));
                let (signal, noise) = measure::energies(&after.hessian.expect("it was wanted"), &moved);
                assert!(measure::decibels(signal, noise) > 100.0, "{k}: {t:?}");
            }
        }
        assert_eq!(HostMix::hadamard(90), HostMix::Hadamard { block: 2 });
        assert_eq!(HostMix::hadamard(576), HostMix::Hadamard { block: 0 });
        assert_eq!((HostMix::hadamard(7), HostMix::hadamard_blocks(7, 32)), (HostMix::None, HostMix::None));
        assert_eq!(HostMix::hadamard_blocks(40, 32), HostMix::Hadamard { block: 8 });
    }

    #[test]
    fn condition_of_a_diagonal() {
        let a = [4.0, 0.0, 0.0, 0.5];
        assert!((condition(&a, &[0.25, 0.0, 0.0, 2.0], 2) - 8.0).abs() < 1e-9);
    }

    #[test]
    fn balanced_sides_have_one_profile() {
        let x = [1.0, 10.0, 0.0, 4.0];
        let w = [1.0, 1.0, 1.0, 0.25];
        let s = balance(&[&w], &x.map(|v: f64| v * v), 1);
        let ratio = |j: usize| f64::from(w[j] / s[j]) / (x[j] * f64::from(s[j]));
        assert!((ratio(0) - ratio(1)).abs() < 1e-6 && (ratio(0) - ratio(3)).abs() < 1e-6);
        assert_eq!(s[2], 1.0);
    }
}

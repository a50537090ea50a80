//! [`InputStats`]: what calibration keeps of the inputs of a matrix.

use crate::parallel;
use crate::random::Random;

/// Statistics of the inputs of a matrix, collected row by row.
#[derive(Clone, Debug)]
pub struct InputStats {
    /// Channels.
    pub k: usize,
    /// Rows seen.
    pub rows: u64,
    /// Rows that were left out because they held values that are not finite.
    pub rejected: u64,
    /// Largest magnitude of each channel.
    pub amax: Vec<f32>,
    /// Mean magnitude of each channel.
    pub mean_abs: Vec<f32>,
    /// Sum of squares of each channel.
    pub sum_sq: Vec<f64>,
    /// `Σ xᵀx`, `[K, K]`, if it was wanted.
    pub hessian: Option<Vec<f32>>,
    /// Some of the rows, `[rows, K]`, each row seen with the same probability.
    pub sample: Vec<f32>,
    max_sample_rows: usize,
    random: Random,
    sum_abs: Vec<f64>,
}

impl InputStats {
    /// Nothing seen yet. `want_hessian`: keep [`InputStats::hessian`], 4 K² bytes. `seed` chooses the sample.
    pub fn new(k: usize, want_hessian: bool, max_sample_rows: usize, seed: u64) -> Self {
        Self {
            k,
            rows: 0,
            rejected: 0,
            amax: vec![0.0; k],
            mean_abs: vec![0.0; k],
            sum_sq: vec![0.0; k],
            hessian: want_hessian.then(|| vec![0.0; k * k]),
            sample: Vec::new(),
            max_sample_rows,
            random: Random::new(seed),
            sum_abs: vec![0.0; k],
        }
    }

    /// Adds whole rows of K channels. The more rows at once, the faster the second moments.
    pub fn add(&mut self, rows: &[f32]) {
        if self.k == 0 {
            return;
        }
        let all = rows.chunks_exact(self.k);
        let kept: Vec<&[f32]> = all.clone().filter(|row| row.iter().all(|v| v.is_finite())).collect();
        self.rejected += (all.len() - kept.len()) as u64;
        for row in &kept {
            self.rows += 1;
            for (j, &v) in row.iter().enumerate() {
                self.amax[j] = self.amax[j].max(v.abs());
                self.sum_abs[j] += f64::from(v.abs());
                self.sum_sq[j] += f64::from(v) * f64::from(v);
            }
            if self.sample.len() < self.max_sample_rows * self.k {
                self.sample.extend_from_slice(row);
            } else {
                let at = self.random.below(self.rows) as usize;
                if at < self.max_sample_rows {
                    self.sample[at * self.k..][..self.k].copy_from_slice(row);
                }
            }
        }
        if self.rows > 0 {
            let mean = |sum: &f64| (sum / self.rows as f64) as f32;
            self.mean_abs = self.sum_abs.iter().map(mean).collect();
        }
        if let Some(hessian) = &mut self.hessian {
            add_second_moments(hessian, self.k, &kept);
        }
    }
}

/// `hessian += Σ xᵀx`: the upper triangle, row by row, then its mirror image.
fn add_second_moments(hessian: &mut [f32], k: usize, rows: &[&[f32]]) {
    for rows in rows.chunks(64) {
        parallel::for_rows(hessian, k, |first, part| {
            for (r, h) in part.chunks_exact_mut(k).enumerate() {
                let i = first + r;
                let h = &mut h[i..];
                for four in rows.chunks(4) {
                    if let [a, b, c, d] = four {
                        let (fa, fb, fc, fd) = (a[i], b[i], c[i], d[i]);
                        let inputs = a[i..].iter().zip(&b[i..]).zip(c[i..].iter().zip(&d[i..]));
                        for (h, ((a, b), (c, d))) in h.iter_mut().zip(inputs) {
                            *h += (fa * a + fb * b) + (fc * c + fd * d);
                        }
                    } else {
                        for x in four {
                            let f = x[i];
                            h.iter_mut().zip(&x[i..]).for_each(|(h, x)| *h += f * x);
                        }
                    }
                }
            }
        });
    }
    for i in 0..k {
        for j in 0..i {
            hessian[i * k + j] = hessian[j * k + i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_sample() {
        let k = 5;
        let mut random = Random::new(3);
        let rows: Vec<f32> = (0..150 * k).map(|_| random.normal() as f32).collect();
        let mut stats = InputStats::new(k, true, 40, 9);
        stats.add(&rows[..70 * k]);
        stats.add(&[1.0, f32::NAN, 0.0, 0.0, 0.0]);
        stats.add(&rows[70 * k..]);
        assert_eq!((stats.rows, stats.rejected, stats.sample.len()), (150, 1, 40 * k));
        let hessian = stats.hessian.expect("it was wanted");
        for i in 0..k {
            let column: Vec<f64> = rows.iter().skip(i).step_by(k).map(|v| f64::from(*v)).collect();
            let mean = column.iter().map(|v| v.abs()).sum::<f64>() / 150.0;
            assert!((f64::from(stats.mean_abs[i]) - mean).abs() < 1e-6);
            for j in 0..k {
                let want: f64 = (0..150).map(|r| f64::from(rows[r * k + i]) * f64::from(rows[r * k + j])).sum();
                assert!((f64::from(hessian[i * k + j]) - want).abs() < 1e-3);
            }
            assert!((f64::from(hessian[i * k + i]) - stats.sum_sq[i]).abs() < 1e-3);
        }
        let seen = |row: &[f32]| rows.chunks(k).any(|r| r == row);
        assert!(stats.sample.chunks(k).all(seen));
    }
}

//! Activations as kernels quantise them, products, errors.

use girih_kernels::quant::{Format, QuantActivation};

use crate::parallel;

/// Rounds a row of activations as the kernel before an integer product does.
pub fn round_activations(activation: QuantActivation, row: &mut [f32]) {
    let QuantActivation::Int { bits, group, clip } = activation else { return };
    let top = (1u32 << (bits - 1)) as f32 - 1.0;
    let group = if group == Format::ROW { row.len().max(1) } else { group as usize };
    for values in row.chunks_mut(group) {
        let amax = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        let scale = if amax == 0.0 { 1.0 } else { clip * amax / top };
        for v in values {
            *v = (*v / scale).clamp(-top - 1.0, top).round_ties_even() * scale;
        }
    }
}

/// Products of two rows with four rows.
fn dots(x: [&[f32]; 2], w: [&[f32]; 4]) -> [[f32; 4]; 2] {
    const LANES: usize = 4;
    let n = x[0].len();
    let mut lanes = [[[0f32; LANES]; 4]; 2];
    let whole = n / LANES * LANES;
    let part = |row: &[f32], i: usize| -> [f32; LANES] {
        let mut part = [0f32; LANES];
        part.copy_from_slice(&row[i..i + LANES]);
        part
    };
    for i in (0..whole).step_by(LANES) {
        let x = [part(x[0], i), part(x[1], i)];
        for (c, w) in w.iter().enumerate() {
            let w = part(w, i);
            for l in 0..LANES {
                lanes[0][c][l] += x[0][l] * w[l];
                lanes[1][c][l] += x[1][l] * w[l];
            }
        }
    }
    let mut sums = lanes.map(|row| row.map(|lanes| lanes.iter().sum::<f32>()));
    for (sums, x) in sums.iter_mut().zip(x) {
        for (sum, w) in sums.iter_mut().zip(w) {
            *sum += x[whole..].iter().zip(&w[whole..n]).map(|(x, w)| x * w).sum::<f32>();
        }
    }
    sums
}

/// `[T, N] = x [T, K] · wᵀ`, w `[N, K]`.
pub fn product(x: &[f32], w: &[f32], k: usize) -> Vec<f32> {
    let n = w.len() / k;
    let mut y = vec![0f32; x.len() / k * n];
    parallel::for_rows(&mut y, n, |first, part| {
        for (c, ws) in w.chunks(4 * k).enumerate() {
            let row = |i: usize| ws.get(i * k..(i + 1) * k).unwrap_or(&ws[..k]);
            let ws = [row(0), row(1), row(2), row(3)];
            for (t, y) in part.chunks_mut(2 * n).enumerate() {
                let row = |i: usize| &x[(first + 2 * t + i.min(y.len() / n - 1)) * k..][..k];
                let sums = dots([row(0), row(1)], ws);
                for (y, sums) in y.chunks_exact_mut(n).zip(sums) {
                    y[4 * c..].iter_mut().zip(sums).for_each(|(y, s)| *y = s);
                }
            }
        }
    });
    y
}

/// `count` of the rows, evenly spaced.
pub fn spread(rows: &[&[f32]], count: usize) -> Vec<f32> {
    let chosen = count.min(rows.len());
    (0..chosen).flat_map(|i| rows[i * rows.len() / chosen].iter().copied()).collect()
}

/// `Σ a²` and `Σ (a - b)²`.
pub fn energies(a: &[f32], b: &[f32]) -> (f64, f64) {
    a.iter().zip(b).fold((0.0, 0.0), |(signal, noise), (&a, &b)| {
        let (a, b) = (f64::from(a), f64::from(b));
        (signal + a * a, noise + (a - b) * (a - b))
    })
}

/// Mean square of each channel relative to their mean, at least a thousandth, so that weights of channels the sample
/// never used are still rounded well.
pub fn power(rows: &[f32], k: usize) -> Vec<f32> {
    let mut sums = vec![0f64; k];
    for row in rows.chunks_exact(k) {
        sums.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v) * f64::from(*v));
    }
    let mean = sums.iter().sum::<f64>() / k as f64;
    sums.iter().map(|s| if mean > 0.0 { (s / mean).max(1e-3) as f32 } else { 1.0 }).collect()
}

/// Signal to noise in dB, at most 200.
pub fn decibels(signal: f64, noise: f64) -> f64 {
    if noise <= signal * 1e-20 { 200.0 } else { 10.0 * (signal / noise).log10() }
}

/// Mean over rows of `max|x| / rms(x)`; rows of zeros do not count.
pub fn amax_over_rms(rows: &[f32], k: usize) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for row in rows.chunks_exact(k) {
        let amax = row.iter().fold(0f32, |m, v| m.max(v.abs()));
        let power = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / k as f64;
        if power > 0.0 {
            sum += f64::from(amax) / power.sqrt();
            count += 1;
        }
    }
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn products() {
        let mut random = Random::new(8);
        for (t, n, k) in [(1, 1, 1), (3, 5, 13), (9, 10, 40)] {
            let x: Vec<f32> = (0..t * k).map(|_| random.normal() as f32).collect();
            let w: Vec<f32> = (0..n * k).map(|_| random.normal() as f32).collect();
            for (i, y) in product(&x, &w, k).into_iter().enumerate() {
                let (x, w) = (&x[i / n * k..][..k], &w[i % n * k..][..k]);
                let want: f64 = x.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                assert!((f64::from(y) - want).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn activations() {
        let mut row = [8.0, 1.0, 0.0, -1.0, 0.0, 2.0, -2.0, 1.0];
        round_activations("int4-token".parse().expect("an activation"), &mut row);
        let s = 8f32 / 7.0;
        assert_eq!(row, [7.0 * s, s, 0.0, -s, 0.0, 2.0 * s, -2.0 * s, s]);
        let mut zeros = [0.0; 4];
        round_activations(QuantActivation::INT8, &mut zeros);
        assert_eq!(zeros, [0.0; 4]);
    }
}

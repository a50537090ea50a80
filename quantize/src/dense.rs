//! Products of small dense f32 matrices, row-major.

use crate::parallel;

/// `out [m, q] += a [m, p] · b [p, q]`.
pub fn add_product(out: &mut [f32], a: &[f32], b: &[f32], p: usize, q: usize) {
    for (out, a) in out.chunks_exact_mut(q).zip(a.chunks_exact(p)) {
        let mut rows = b.chunks_exact(4 * q);
        let mut factors = a.chunks_exact(4);
        for (b, f) in rows.by_ref().zip(factors.by_ref()) {
            let ((b0, b1), (b2, b3)) = (b[..2 * q].split_at(q), b[2 * q..].split_at(q));
            for (o, ((b0, b1), (b2, b3))) in out.iter_mut().zip(b0.iter().zip(b1).zip(b2.iter().zip(b3))) {
                *o += (f[0] * b0 + f[1] * b1) + (f[2] * b2 + f[3] * b3);
            }
        }
        for (b, f) in rows.remainder().chunks_exact(q).zip(factors.remainder()) {
            out.iter_mut().zip(b).for_each(|(o, b)| *o += f * b);
        }
    }
}

/// `out [p, q] += aᵀ · b`, a `[m, p]`, b `[m, q]`.
pub fn add_outer_products(out: &mut [f32], a: &[f32], b: &[f32], p: usize, q: usize) {
    for (a, b) in a.chunks(4 * p).zip(b.chunks(4 * q)) {
        if a.len() == 4 * p {
            for (i, out) in out.chunks_exact_mut(q).enumerate() {
                let f = [a[i], a[p + i], a[2 * p + i], a[3 * p + i]];
                add_product(out, &f, b, 4, q);
            }
        } else {
            for (a, b) in a.chunks_exact(p).zip(b.chunks_exact(q)) {
                for (f, out) in a.iter().zip(out.chunks_exact_mut(q)) {
                    out.iter_mut().zip(b).for_each(|(o, b)| *o += f * b);
                }
            }
        }
    }
}

/// `a [m, p] · b [p, q]`, spread over threads.
pub fn product(a: &[f32], b: &[f32], p: usize, q: usize) -> Vec<f32> {
    let mut out = vec![0f32; a.len() / p * q];
    parallel::for_rows(&mut out, q, |first, rows| {
        let count = rows.len() / q;
        add_product(rows, &a[first * p..][..count * p], b, p, q);
    });
    out
}

/// The transposed of `[m, q]`.
pub fn transposed(a: &[f32], q: usize) -> Vec<f32> {
    let m = a.len() / q;
    (0..a.len()).map(|i| a[i % m * q + i / m]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products() {
        for (m, p, q) in [(1, 1, 1), (3, 5, 4), (9, 8, 7), (12, 4, 9)] {
            let a: Vec<f32> = (0..m * p).map(|i| (i as f32 * 0.7).sin()).collect();
            let b: Vec<f32> = (0..p * q).map(|i| (i as f32 * 0.3).cos()).collect();
            let want: Vec<f32> = (0..m * q)
                .map(|i| (0..p).map(|j| a[i / q * p + j] * b[j * q + i % q]).sum())
                .collect();
            let close = |got: &[f32]| got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(close(&product(&a, &b, p, q)));
            let mut out = vec![0.0; m * q];
            add_outer_products(&mut out, &transposed(&a, p), &b, m, q);
            assert!(close(&out));
        }
    }
}

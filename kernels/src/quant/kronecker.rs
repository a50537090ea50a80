//! Kronecker transforms in f64: `x (P1 ⊗ P2)`, their inverses for weights, the shapes of their factors.
//!
//! A row of `n = n1 · n2` channels is seen as `X [n1, n2]`; `x (P1 ⊗ P2)` is `P1ᵀ X P2`. Weights take the inverse on
//! the other side, `W (P1 ⊗ P2)^-T`, each row as `P1^-1 W P2^-T`, so that the product with the input stays.

/// A matrix that has no inverse, or one that rounding would spoil.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("a matrix of order {order} has condition number {condition:.1e}, must be below {MAX_CONDITION:.0e}")]
pub struct Singular {
    /// Order.
    pub order: usize,
    /// `‖A‖ ‖A⁻¹‖` in the largest row sum; infinite where there is no inverse.
    pub condition: f64,
}

/// Largest condition number of a matrix that is inverted: 6 digits of f32 activations remain of 16 in f64.
pub const MAX_CONDITION: f64 = 1e10;

/// `(n1, n2)`, `n1 <= n2`, the factors of n that are nearest to its root and both even or both odd; where there are
/// none (`n ≡ 2 (mod 4)`) the nearest ones of any parity. `(0, 0)` for 0.
pub fn factor_pair(n: u32) -> (u32, u32) {
    if n == 0 {
        return (0, 0);
    }
    let same_parity = n % 4 != 2;
    (1..=n.isqrt())
        .rev()
        .filter(|d| n.is_multiple_of(*d))
        .find(|d| !same_parity || (d + n / d).is_multiple_of(2))
        .map_or((1, n), |d| (d, n / d))
}

/// `P1ᵀ X P2` of one row; `p1` is `[n1, n1]`, `p2` is `[n2, n2]`, `x` has `n1 · n2` channels.
pub fn kronecker(x: &[f64], p1: &[f64], p2: &[f64]) -> Vec<f64> {
    let (n1, n2) = (p1.len().isqrt(), p2.len().isqrt());
    product(&transposed(p1, n1), &product(x, p2, n2), n1)
}

/// The weight side of [`kronecker`], of one row of weights: `P1^-1 W P2^-T`, from the inverses of P1 and P2.
pub fn kronecker_weight(w: &[f64], p1_inverse: &[f64], p2_inverse: &[f64]) -> Vec<f64> {
    let (n1, n2) = (p1_inverse.len().isqrt(), p2_inverse.len().isqrt());
    product(p1_inverse, &product(w, &transposed(p2_inverse, n2), n2), n1)
}

/// `a · b`, `inner` columns of a and rows of b.
fn product(a: &[f64], b: &[f64], inner: usize) -> Vec<f64> {
    let columns = b.len() / inner.max(1);
    let mut y = vec![0.0; a.len() / inner.max(1) * columns];
    for (row, y) in a.chunks_exact(inner.max(1)).zip(y.chunks_exact_mut(columns.max(1))) {
        for (factor, b) in row.iter().zip(b.chunks_exact(columns.max(1))) {
            y.iter_mut().zip(b).for_each(|(y, b)| *y += factor * b);
        }
    }
    y
}

/// The transposed of a square matrix.
pub fn transposed(a: &[f64], order: usize) -> Vec<f64> {
    (0..a.len()).map(|i| a[i % order * order + i / order]).collect()
}

/// The inverse of a square matrix, by elimination with row pivots.
///
/// # Errors
/// No inverse, or a condition number over [`MAX_CONDITION`].
pub fn inverse(a: &[f64], order: usize) -> Result<Vec<f64>, Singular> {
    let singular = |condition| Singular { order, condition };
    if order == 0 || a.len() != order * order {
        return Err(singular(f64::INFINITY));
    }
    let width = 2 * order;
    let mut rows: Vec<f64> = vec![0.0; order * width]; // [A | I]
    for (i, (to, from)) in rows.chunks_exact_mut(width).zip(a.chunks_exact(order)).enumerate() {
        to[..order].copy_from_slice(from);
        to[order + i] = 1.0;
    }
    for column in 0..order {
        let pivot = (column..order)
            .max_by(|&i, &j| f64::total_cmp(&rows[i * width + column].abs(), &rows[j * width + column].abs()))
            .unwrap_or(column);
        let lead = rows[pivot * width + column];
        if lead == 0.0 || !lead.is_finite() {
            return Err(singular(f64::INFINITY));
        }
        for i in 0..width {
            rows.swap(column * width + i, pivot * width + i);
        }
        rows[column * width..][..width].iter_mut().for_each(|v| *v /= lead);
        let own = rows[column * width..][..width].to_vec();
        for (i, row) in rows.chunks_exact_mut(width).enumerate() {
            let factor = row[column];
            if i != column && factor != 0.0 {
                row.iter_mut().zip(&own).for_each(|(v, own)| *v -= factor * own);
            }
        }
    }
    let inverse: Vec<f64> = rows.chunks_exact(width).flat_map(|row| row[order..].to_vec()).collect();
    let norm = |m: &[f64]| {
        m.chunks_exact(order).map(|row| row.iter().map(|v| v.abs()).sum::<f64>()).fold(0.0, f64::max)
    };
    let condition = norm(a) * norm(&inverse);
    if condition < MAX_CONDITION { Ok(inverse) } else { Err(singular(condition)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_those_of_the_table() {
        let table = [
            (576, 24, 24),
            (768, 24, 32),
            (896, 28, 32),
            (2880, 48, 60),
            (3584, 56, 64),
            (4096, 64, 64),
            (4864, 64, 76),
            (5120, 64, 80),
            (11008, 86, 128),
            (12288, 96, 128),
            (14336, 112, 128),
            (18944, 128, 148),
            (29568, 168, 176),
            (53248, 208, 256),
            (30, 5, 6),
            (7, 1, 7),
            (1, 1, 1),
            (2, 1, 2),
            (6, 2, 3),
        ];
        for (n, n1, n2) in table {
            assert_eq!(factor_pair(n), (n1, n2), "{n}");
        }
    }

    #[test]
    fn the_hand_case() {
        let r = 0.5f64.sqrt();
        let h2 = [r, r, r, -r];
        let h4: Vec<f64> =
            (0..16u32).map(|i| if ((i / 4) & (i % 4)).count_ones() % 2 == 0 { 0.5 } else { -0.5 }).collect();
        let y = kronecker(&[8.0, 1.0, 0.0, -1.0, 0.0, 2.0, -2.0, 1.0], &h2, &h4);
        let want = [3.182, 1.061, 4.596, 2.475, 2.475, 4.596, 2.475, 1.768];
        for (y, want) in y.iter().zip(want) {
            assert!((y - want).abs() < 5e-4, "{y} {want}");
        }
    }

    #[test]
    fn inverses_invert_and_the_product_stays() {
        let random = |seed: u32, len: usize| -> Vec<f64> {
            crate::case::seeded(len, seed).into_iter().map(f64::from).collect()
        };
        for (n1, n2) in [(1, 3), (4, 6), (12, 10)] {
            let (p1, p2) = (random(1, n1 * n1), random(2, n2 * n2));
            let (i1, i2) = (inverse(&p1, n1).expect("regular"), inverse(&p2, n2).expect("regular"));
            let (x, w) = (random(3, n1 * n2), random(4, n1 * n2));
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let got = dot(&kronecker(&x, &p1, &p2), &kronecker_weight(&w, &i1, &i2));
            assert!((got - dot(&x, &w)).abs() < 1e-8, "{got}");
        }
        let error = inverse(&[1.0, 2.0, 2.0, 4.0], 2).expect_err("no inverse");
        assert!(error.condition.is_infinite());
        assert!(inverse(&[1.0, 1.0, 1.0, 1.0 + 1e-12], 2).is_err());
        assert!(inverse(&[1.0; 3], 2).is_err());
    }
}

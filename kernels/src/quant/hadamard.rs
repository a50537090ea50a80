//! Orthonormal Hadamard transforms of every order that models have: their matrices, their definition in f64.
//!
//! A row of `n = K · 2^m` channels is seen as `[K, 2^m]`; the fast axis is multiplied by Sylvester's matrix (natural
//! order, by butterflies), the slow axis by a matrix of order K with entries ±1 and `H Hᵀ = K·I`, and the whole by
//! `1 / sqrt(n)`. K is the smallest order that has a construction below: of Paley (1933), whose first kind wants a
//! prime `K - 1 ≡ 3 (mod 4)` and whose second kind a prime `K / 2 - 1 ≡ 1 (mod 4)`, or of Williamson (1944). Sizes
//! without one take K as a product of two or three such orders (29568 = 12·28·44·2). Orders 12 and 20 are arranged
//! as in the published tools that rotate checkpoints, so checkpoints of theirs match.

/// Largest order that is multiplied as one matrix.
const MAX_ORDER: u32 = 200;

/// First rows of the four symmetric circulants of Williamson's matrices of order 4m.
const WILLIAMSON: [(u32, [&str; 4]); 3] = [
    (52, ["+-+--++++--+-", "+---++++++---", "++-+--++--+-+", "+----+--+----"]),
    (
        156,
        [
            "+++--+-+-----+--++----++--+-----+-+--++",
            "++++---+--++----+-+--+-+----++--+---+++",
            "+++--++-+---+-+--+----+--+-+---+-++--++",
            "+---++-+-+-----+++-++-+++-----+-+-++---",
        ],
    ),
    (
        172,
        [
            "+---++--++++-+-+++-++--++-+++-+-++++--++---",
            "++-++++++----+-+--++-++-++--+-+----++++++-+",
            "+++-+-++--+-+-++++-+----+-++++-+-+--++-+-++",
            "++---++++-+--+--++--------++--+--+-++++---+",
        ],
    ),
];

/// Which circulant stands where in Williamson's matrix, and its sign:
/// `[[A, B, C, D], [-B, A, -D, C], [-C, D, A, -B], [-D, -C, B, A]]`.
const WILLIAMSON_BLOCKS: [[(usize, i8); 4]; 4] = [
    [(0, 1), (1, 1), (2, 1), (3, 1)],
    [(1, -1), (0, 1), (3, -1), (2, 1)],
    [(2, -1), (3, 1), (0, 1), (1, -1)],
    [(3, -1), (2, -1), (1, 1), (0, 1)],
];

/// How `n` channels are transformed: matrices of the orders `factors` (1 where there is none) on the slow axes,
/// butterflies on the fast one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HadamardPlan {
    /// Orders of the matrices of the slow axes, the slowest first; their product is K.
    pub factors: [u32; 3],
    /// Length of the fast axis, a power of two.
    pub pow2: u32,
}

impl HadamardPlan {
    /// The order of the matrix on the slow axis: the product of the factors.
    pub fn k(&self) -> u32 {
        self.factors.iter().product()
    }

    /// Channels.
    pub fn n(&self) -> u32 {
        self.k() * self.pow2
    }

    /// `x Hᵀ / sqrt(n)` of every run of `n` channels, or `x H / sqrt(n)`, its inverse. A run that is not whole
    /// stays.
    pub fn apply(&self, x: &mut [f64], transposed: bool) {
        let (n, pow2) = (self.n() as usize, self.pow2 as usize);
        let scale = 1.0 / f64::from(self.n()).sqrt();
        let mut axes = Vec::new();
        let mut stride = n;
        for factor in self.factors.into_iter().filter(|&f| f > 1) {
            stride /= factor as usize;
            axes.push((factor as usize, stride, matrix(factor).unwrap_or_default()));
        }
        for run in x.chunks_exact_mut(n) {
            for row in run.chunks_exact_mut(pow2) {
                butterflies(row);
            }
            for (order, stride, h) in &axes {
                multiply_axis(run, *order, *stride, h, transposed);
            }
            for v in run.iter_mut() {
                *v *= scale;
            }
        }
    }
}

/// The plan for `n` channels; `None` where no construction is known (odd n over 1, 2·odd, a few more).
pub fn plan(n: u32) -> Option<HadamardPlan> {
    if n == 0 {
        return None;
    }
    let odd = n >> n.trailing_zeros();
    if odd == 1 {
        return Some(HadamardPlan { factors: [1; 3], pow2: n });
    }
    if let Some(k) = base_order(odd, n) {
        return Some(HadamardPlan { factors: [k, 1, 1], pow2: n / k });
    }
    let mut best: Option<HadamardPlan> = None;
    for a in divisors(odd) {
        for b in divisors(odd / a).filter(|&b| b >= a) {
            let c = odd / a / b;
            if c > 1 && c < b {
                continue;
            }
            let Some(factors) = product_orders([a, b, c], n) else { continue };
            let plan = HadamardPlan { factors, pow2: n / factors.iter().product::<u32>() };
            let cost = |p: &HadamardPlan| p.factors.iter().sum::<u32>();
            if best.as_ref().is_none_or(|b| cost(&plan) < cost(b)) {
                best = Some(plan);
            }
        }
    }
    best
}

fn divisors(n: u32) -> impl Iterator<Item = u32> {
    (2..=n).filter(move |d| n.is_multiple_of(*d))
}

/// The smallest order `odd · 2^j` that has a construction and divides n.
fn base_order(odd: u32, n: u32) -> Option<u32> {
    (2..32)
        .map_while(|j| odd.checked_mul(1 << j))
        .take_while(|&k| k <= MAX_ORDER && n.is_multiple_of(k))
        .find(|&k| construction(k).is_some())
}

fn product_orders(odds: [u32; 3], n: u32) -> Option<[u32; 3]> {
    let mut orders = [1; 3];
    let mut left = n;
    for (order, odd) in orders.iter_mut().zip(odds).filter(|(_, odd)| *odd > 1) {
        *order = base_order(odd, left)?;
        left /= *order / odd; // the powers of two that are left for the others
    }
    Some(orders)
}

enum Construction {
    Sylvester,
    Paley1(u32),
    Paley2(u32),
    Williamson([&'static str; 4]),
}

fn construction(order: u32) -> Option<Construction> {
    if order.is_power_of_two() {
        return Some(Construction::Sylvester);
    }
    if !order.is_multiple_of(4) || order > MAX_ORDER {
        return None;
    }
    if is_prime(order - 1) {
        return Some(Construction::Paley1(order - 1)); // 3 (mod 4), as order is 0 (mod 4)
    }
    let q = order / 2 - 1;
    if is_prime(q) && q % 4 == 1 {
        return Some(Construction::Paley2(q));
    }
    WILLIAMSON.iter().find(|(k, _)| *k == order).map(|(_, rows)| Construction::Williamson(*rows))
}

fn is_prime(n: u32) -> bool {
    n > 1 && (2..n).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

/// The matrix of an order, row-major, entries ±1; `None` for orders without a construction here.
pub fn matrix(order: u32) -> Option<Vec<i8>> {
    let k = order as usize;
    let mut h = vec![1i8; k * k];
    let mut fill = |entry: &dyn Fn(usize, usize) -> i8| {
        for (i, row) in h.chunks_exact_mut(k).enumerate() {
            row.iter_mut().enumerate().for_each(|(j, v)| *v = entry(i, j));
        }
    };
    match construction(order)? {
        Construction::Sylvester => {
            fill(&|i, j| if (i & j).count_ones().is_multiple_of(2) { 1 } else { -1 });
        }
        Construction::Paley1(q) => {
            let chi = residues(q);
            fill(&|i, j| match (i, j) {
                (_, 0) => 1,
                (0, _) => -1,
                _ if i == j => 1,
                _ => chi[(q as usize + i - j) % q as usize],
            });
        }
        Construction::Paley2(q) => {
            let chi = residues(q);
            fill(&|i, j| {
                let (row, column) = (i / 2, j / 2);
                let minus_on_second = if i % 2 == 1 && j % 2 == 1 { -1 } else { 1 };
                match (row, column) {
                    // I ⊗ [[1, -1], [-1, -1]]
                    _ if row == column => {
                        if i % 2 == 0 && j % 2 == 0 {
                            1
                        } else {
                            -1
                        }
                    }
                    // C ⊗ [[1, 1], [1, -1]]
                    (0, _) | (_, 0) => minus_on_second,
                    _ => chi[(q as usize + column - row) % q as usize] * minus_on_second,
                }
            });
        }
        Construction::Williamson(rows) => {
            let m = k / 4;
            fill(&|i, j| {
                let (which, sign) = WILLIAMSON_BLOCKS[i / m][j / m];
                let entry = rows[which].as_bytes()[(m + j % m - i % m) % m];
                if entry == b'+' { sign } else { -sign }
            });
        }
    }
    Some(h)
}

/// Legendre symbols of 0..q.
fn residues(q: u32) -> Vec<i8> {
    let mut chi = vec![-1i8; q as usize];
    chi[0] = 0;
    for i in 1..q {
        chi[(i * i % q) as usize] = 1;
    }
    chi
}

/// Sylvester's matrix times x, not normalised.
fn butterflies(x: &mut [f64]) {
    let mut half = 1;
    while half < x.len() {
        for pair in x.chunks_exact_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

/// `y[k'] = Σ_k h[k', k] x[k]` along the axis of length `order` and the given stride.
fn multiply_axis(x: &mut [f64], order: usize, stride: usize, h: &[i8], transposed: bool) {
    let mut column = vec![0.0; order];
    for block in x.chunks_exact_mut(order * stride) {
        for j in 0..stride {
            for (k, v) in column.iter_mut().enumerate() {
                *v = block[k * stride + j];
            }
            for to in 0..order {
                block[to * stride + j] = column
                    .iter()
                    .enumerate()
                    .map(|(from, v)| {
                        let at = if transposed { from * order + to } else { to * order + from };
                        v * f64::from(h[at])
                    })
                    .sum();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(order: u32, row: usize) -> String {
        let k = order as usize;
        matrix(order).expect("an order")[row * k..][..k]
            .iter()
            .map(|&v| if v > 0 { '+' } else { '-' })
            .collect()
    }

    #[test]
    fn rows_of_every_order_are_orthogonal() {
        let mut orders = 0;
        for order in 1..=MAX_ORDER {
            let Some(h) = matrix(order) else { continue };
            orders += 1;
            let k = order as usize;
            assert!(h.iter().all(|v| v.abs() == 1), "{order}");
            for a in 0..k {
                for b in 0..=a {
                    let dot: i32 = (0..k).map(|i| i32::from(h[a * k + i]) * i32::from(h[b * k + i])).sum();
                    assert_eq!(dot, if a == b { order.cast_signed() } else { 0 }, "order {order}, {a} {b}");
                }
            }
        }
        assert_eq!(orders, 37);
    }

    #[test]
    fn orders_12_and_20_are_arranged_as_published() {
        assert_eq!(text(12, 0), "+-----------");
        assert_eq!(text(12, 1), "++-+---+++-+");
        assert_eq!(text(12, 11), "+-+---+++-++");
        assert_eq!(text(20, 1), "++-++----+-+-++++--+");
        assert_eq!(text(20, 19), "+-++----+-+-++++--++");
    }

    #[test]
    fn the_sizes_of_models_have_the_plans_of_the_table() {
        let table = [
            (576, 36),
            (768, 12),
            (896, 28),
            (1152, 36),
            (1536, 12),
            (2304, 36),
            (2560, 20),
            (2880, 180),
            (3072, 12),
            (3200, 200),
            (3584, 28),
            (4608, 36),
            (4864, 76),
            (5120, 20),
            (5376, 84),
            (5632, 44),
            (6144, 12),
            (6400, 200),
            (6912, 108),
            (8960, 140),
            (9216, 36),
            (9728, 76),
            (11008, 172),
            (12288, 12),
            (13824, 108),
            (14336, 28),
            (15360, 60),
            (17408, 68),
            (18944, 148),
            (19456, 76),
            (21504, 84),
            (25600, 200),
            (27648, 108),
            (28672, 28),
            (53248, 52),
            (4096, 1),
        ];
        for (n, k) in table {
            assert_eq!(plan(n), Some(HadamardPlan { factors: [k, 1, 1], pow2: n / k }), "{n}");
        }
        assert_eq!(plan(29568), Some(HadamardPlan { factors: [12, 28, 44], pow2: 2 }));
        for none in [0, 3, 6, 10, 30, 4097] {
            assert_eq!(plan(none), None, "{none}");
        }
    }

    #[test]
    fn the_hand_case() {
        let mut x = [1.0, 2.0, 3.0, 4.0];
        plan(4).expect("a plan").apply(&mut x, false);
        assert_eq!(x, [5.0, -1.0, -2.0, 0.0]);
    }

    #[test]
    fn the_transposed_form_is_the_inverse() {
        for n in [1, 2, 8, 12, 20, 24, 36, 104, 172, 576, 29568] {
            let plan = plan(n).expect("a plan");
            let x: Vec<f64> = (0..2 * n).map(|i| f64::from(i * 37 % 101) - 50.0).collect();
            let mut y = x.clone();
            plan.apply(&mut y, false);
            let energy = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>();
            assert!((energy(&y) / energy(&x) - 1.0).abs() < 1e-12, "{n}");
            plan.apply(&mut y, true);
            let worst = x.iter().zip(&y).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-10, "{n}: {worst}");
        }
    }

    #[test]
    fn butterflies_are_the_matrix() {
        // 24 = 12 · 2: H = H_12 ⊗ H_2, y = x Hᵀ / sqrt(24).
        let h12 = matrix(12).expect("order 12");
        let x: Vec<f64> = (0..24).map(|i| f64::from(i * i % 17)).collect();
        let mut fast = x.clone();
        plan(24).expect("a plan").apply(&mut fast, false);
        for (i, got) in fast.iter().enumerate() {
            let want: f64 = (0..24)
                .map(|j| {
                    let sign = if i % 2 == 1 && j % 2 == 1 { -1.0 } else { 1.0 };
                    x[j] * f64::from(h12[i / 2 * 12 + j / 2]) * sign
                })
                .sum::<f64>()
                / 24f64.sqrt();
            assert!((got - want).abs() < 1e-12);
        }
    }
}

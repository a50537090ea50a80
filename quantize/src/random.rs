//! Counter-based splitmix64: the same numbers in any language.

/// Stream of random numbers of a seed.
#[derive(Clone, Debug)]
pub struct Random {
    seed: u64,
    count: u64,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self { seed, count: 0 }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.count += 1;
        let z = self.seed.wrapping_add(self.count.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In (0, 1).
    pub fn uniform(&mut self) -> f64 {
        ((self.bits() >> 40) as f64 + 0.5) / f64::from(1u32 << 24)
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        let (a, b) = (self.uniform(), self.uniform());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }

    /// In `0..n`.
    pub fn below(&mut self, n: u64) -> u64 {
        (u128::from(self.bits()) * u128::from(n) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let mut bits = Random::new(1);
        assert_eq!(
            [bits.bits(), bits.bits(), bits.bits()],
            [0x910a_2dec_8902_5cc1, 0xbeeb_8da1_658e_ec67, 0xf893_a2ee_fb32_555e]
        );
        let mut normal = Random::new(1);
        for want in [-0.028_249_8, -0.227_919_62, 0.103_090_72, -0.506_204_05] {
            assert!((normal.normal() - want).abs() < 1e-7);
        }
        assert!((0..100).all(|_| bits.below(3) < 3));
    }
}

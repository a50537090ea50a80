//! Activation functions in f64: what the functions of `common/activation.wgsl` are compared with.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

/// `1 / (1 + exp(-x))`
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `x sigmoid(x)` (Elfwing et al. 2017)
pub fn silu(x: f64) -> f64 {
    x * sigmoid(x)
}

/// `x Phi(x)`, Phi the normal distribution (Hendrycks & Gimpel 2016)
pub fn gelu_erf(x: f64) -> f64 {
    0.5 * x * erfc(-x * FRAC_1_SQRT_2)
}

/// `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x³)))` (Hendrycks & Gimpel 2016)
pub fn gelu_tanh(x: f64) -> f64 {
    x * sigmoid(2.0 * (2.0 / PI).sqrt() * (x + 0.044715 * x.powi(3)))
}

/// `x sigmoid(1.702 x)`
pub fn quick_gelu(x: f64) -> f64 {
    x * sigmoid(1.702 * x)
}

/// `max(x, 0)`
pub fn relu(x: f64) -> f64 {
    x.max(0.0)
}

/// `max(x, 0)²` (So et al. 2021)
pub fn relu2(x: f64) -> f64 {
    relu(x).powi(2)
}

/// Hyperbolic tangent.
pub fn tanh(x: f64) -> f64 {
    x.tanh()
}

/// `log(1 + exp(x))`
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Complement of the error function, `2 / sqrt(pi) ∫_x^∞ exp(-t²) dt`, to about 1e-14 relative.
pub fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    if x > 27.0 {
        return 0.0;
    }
    if x < 2.0 {
        // erf(x) = 2 / sqrt(pi) exp(-x²) Σ 2ⁿ x²ⁿ⁺¹ / (2n + 1)!!, all terms positive
        let (mut term, mut sum, mut n) = (x, x, 1.0);
        while term > 1e-18 * sum {
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
            n += 1.0;
        }
        return 1.0 - FRAC_2_SQRT_PI * (-x * x).exp() * sum;
    }
    // exp(-x²) / sqrt(pi) · 1 / (x + (1/2) / (x + (2/2) / (x + (3/2) / (x + ...
    let fraction = (1..=120).rev().fold(x, |f, n| x + 0.5 * f64::from(n) / f);
    (-x * x).exp() / (PI.sqrt() * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erfc_has_its_published_values() {
        // Abramowitz & Stegun, table 7.1 and 7.3
        for (x, want) in [
            (0.0, 1.0),
            (0.5, 0.479_500_122_186_953_5),
            (1.0, 0.157_299_207_050_285_13),
            (1.999_999, 0.004_677_755_648_073_953),
            (2.0, 0.004_677_734_981_047_266),
            (3.0, 2.209_049_699_858_544e-5),
            (5.0, 1.537_459_794_428_035e-12),
            (-1.0, 1.842_700_792_949_715),
        ] {
            let got = erfc(x);
            assert!((got - want).abs() <= 3e-13 * want, "erfc({x}) = {got}, want {want}");
        }
    }

    #[test]
    fn activations_have_their_limits() {
        for f in [silu, gelu_erf, gelu_tanh, quick_gelu, softplus] {
            assert!((f(50.0) - 50.0).abs() < 1e-12);
            assert!(f(-200.0).abs() < 1e-20);
        }
        assert!((gelu_erf(1.0) - 0.841_344_746_068_542_9).abs() < 1e-15);
        assert!((gelu_tanh(1.0) - 0.841_191_990_608_303_6).abs() < 1e-6);
        assert!((softplus(0.0) - 2.0_f64.ln()).abs() < 1e-15);
    }
}

// Activation functions on f32. No argument overflows; results keep their relative accuracy (about 2e-6, where
// the device's exp has it) also where they are tiny. Built-in tanh and erf-like sums 1 + erf(x) do not.

fn act_sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(min(-x, 87.0))); }

fn act_silu(x: f32) -> f32 { return x * act_sigmoid(x); }

fn act_quick_gelu(x: f32) -> f32 { return x * act_sigmoid(1.702 * x); }

fn act_relu(x: f32) -> f32 { return max(x, 0.0); }

fn act_relu2(x: f32) -> f32 { let r = max(x, 0.0); return r * r; }

// x / 2 (1 + tanh(u)) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)
fn act_gelu_tanh(x: f32) -> f32 {
    let c = clamp(x, -16.0, 16.0);
    return x * act_sigmoid(1.5957691216 * c * (1.0 + 0.044715 * c * c));
}

// x Phi(x), Phi(-z sqrt 2) = erfc(z) / 2. erfc: Chebyshev fit of Numerical Recipes (erfcc), fractional error
// below 1.2e-7 for all z >= 0.
fn act_gelu_erf(x: f32) -> f32 {
    let z = min(abs(x) * 0.70710678, 9.0);
    let t = 1.0 / (1.0 + 0.5 * z);
    let a = 0.09678418 + t * (-0.18628806 + t * (0.27886807
        + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277)))));
    let b = -1.26551223 + t * (1.00002368 + t * (0.37409196 + t * a));
    let tail = 0.5 * t * exp(b - z * z);
    return x * select(tail, 1.0 - tail, x > 0.0);
}

// Cephes tanhf near 0, else 1 - 2 / (exp(2 |x|) + 1).
fn act_tanh(x: f32) -> f32 {
    let a = min(abs(x), 10.0);
    let s = x * x;
    let near = x + x * s * (-3.33332819422e-1 + s * (1.33314422036e-1 + s * (-5.37397155531e-2
        + s * (2.06390887954e-2 - s * 5.70498872745e-3))));
    let far = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
    return select(select(far, -far, x < 0.0), near, a < 0.625);
}

// log(1 + exp(x)) = max(x, 0) + 2 artanh(e / (2 + e)), e = exp(-|x|)
fn act_softplus(x: f32) -> f32 {
    let e = exp(-min(abs(x), 87.0));
    let s = e / (2.0 + e);
    let q = s * s;
    let series = 1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0
        + q * (1.0 / 13.0))))));
    return max(x, 0.0) + 2.0 * s * series;
}

//! Kernels without reductions: each element of the result by itself.

pub mod activation;
pub mod glu;
pub mod scale_add;

use crate::activation as f;
use crate::case::Tolerance;

/// Activation functions, in the order of `elementwise/select_activation.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x sigmoid(x)`
    Silu,
    /// `x Phi(x)`, exact.
    GeluErf,
    /// GELU by its tanh approximation.
    GeluTanh,
    /// `max(x, 0)`
    Relu,
    /// `max(x, 0)²`
    Relu2,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `log(1 + exp(x))`
    Softplus,
    /// Hyperbolic tangent.
    Tanh,
    /// `x sigmoid(1.702 x)`
    QuickGelu,
}

impl Activation {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Silu,
        Self::GeluErf,
        Self::GeluTanh,
        Self::Relu,
        Self::Relu2,
        Self::Sigmoid,
        Self::Softplus,
        Self::Tanh,
        Self::QuickGelu,
    ];

    /// The definition, in f64.
    pub fn eval(self, x: f64) -> f64 {
        match self {
            Self::Silu => f::silu(x),
            Self::GeluErf => f::gelu_erf(x),
            Self::GeluTanh => f::gelu_tanh(x),
            Self::Relu => f::relu(x),
            Self::Relu2 => f::relu2(x),
            Self::Sigmoid => f::sigmoid(x),
            Self::Softplus => f::softplus(x),
            Self::Tanh => f::tanh(x),
            Self::QuickGelu => f::quick_gelu(x),
        }
    }

    fn code(self) -> u32 {
        self as u32
    }

    fn from_code(code: u32) -> Self {
        Self::ALL.get(code as usize).copied().unwrap_or(Self::QuickGelu)
    }
}

/// exp has an error of up to 18 ulp (lavapipe), and the absolute error of its argument is one more relative error:
/// arguments stay below about 30 where the result is not negligible.
const TOLERANCE: Tolerance = Tolerance { abs: 1e-6, rel: 1e-5 };

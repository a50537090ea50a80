//! What the twins of the family share, in f64.

use super::Format;
use crate::activation::{gelu_erf, gelu_tanh, relu, silu};
use crate::twin::TwinCall;

/// W `[N, 8 K8]`.
pub(super) fn weights(call: &TwinCall<'_>, binding: usize) -> Vec<f32> {
    match Format::of(call.selection) {
        Format::F32 => call.get(binding),
        Format::F16 => call.get::<half::f16>(binding).into_iter().map(half::f16::to_f32).collect(),
        Format::Bf16 => call.get::<half::bf16>(binding).into_iter().map(half::bf16::to_f32).collect(),
    }
}

/// `Σ x w` over the channels of x.
pub(super) fn dot(x: &[f64], w: &[f32]) -> f64 {
    x.iter().zip(w).map(|(&x, &w)| x * f64::from(w)).sum()
}

/// The epilogue of one dispatch.
pub(super) struct Finish {
    pub act: u32,
    pub glu: bool,
    pub bias: Option<Vec<f32>>,
    pub residual: Option<Vec<f32>>,
    pub alpha: f32,
    pub soft_cap: f32,
    pub y_stride: u32,
}

impl Finish {
    /// Writes the columns from `n_base` on of a row of y.
    pub fn store(&self, y: &mut [f32], row: usize, n_base: usize, sums: &[f64]) {
        let affine = |i: usize| {
            let bias = self.bias.as_ref().map_or(0.0, |b| f64::from(b[n_base + i]));
            f64::from(self.alpha) * (sums[i] + bias)
        };
        let act = |v: f64| match self.act {
            1 => silu(v),
            2 => gelu_erf(v),
            3 => gelu_tanh(v),
            4 => relu(v),
            5 => f64::from(self.soft_cap) * (v / f64::from(self.soft_cap)).tanh(),
            _ => v,
        };
        let mut put = |column: usize, v: f64| {
            let at = row * self.y_stride as usize + column;
            y[at] = (v + self.residual.as_ref().map_or(0.0, |r| f64::from(r[at]))) as f32;
        };
        if self.glu {
            for i in (0..sums.len()).step_by(2) {
                put(n_base / 2 + i / 2, act(affine(i)) * affine(i + 1));
            }
        } else {
            for i in 0..sums.len() {
                put(n_base + i, act(affine(i)));
            }
        }
    }
}

/// The epilogue that a selection asks for, with its buffers.
pub(super) fn finish(
    call: &TwinCall<'_>,
    [bias, residual]: [usize; 2],
    [alpha, soft_cap]: [f32; 2],
    y_stride: u32,
) -> Finish {
    let has = |name: &str, binding: usize| call.selection.get_bool(name).then(|| call.get(binding));
    Finish {
        act: call.selection.get_u32("ACT").unwrap_or(0),
        glu: call.selection.get_bool("GLU"),
        bias: has("HAS_BIAS", bias),
        residual: has("HAS_RESIDUAL", residual),
        alpha,
        soft_cap,
        y_stride,
    }
}

/// Seeded weights `[N, 8 K8]` in a format, scaled so that sums of K products are of the order of 1, zero-padded.
pub(super) fn seeded_weights(n: u32, k: u32, format: Format, seed: u32) -> Vec<u8> {
    let scale = 1.0 / (k as f32).sqrt();
    let values = crate::testing::seeded((n * k) as usize, seed);
    let mut bytes = Vec::new();
    for row in values.chunks_exact(k as usize) {
        for i in 0..k.next_multiple_of(8) as usize {
            let v = row.get(i).map_or(0.0, |v| v * scale);
            match format {
                Format::F32 => bytes.extend(v.to_le_bytes()),
                Format::F16 => bytes.extend(half::f16::from_f32(v).to_le_bytes()),
                Format::Bf16 => bytes.extend(half::bf16::from_f32(v).to_le_bytes()),
            }
        }
    }
    bytes
}

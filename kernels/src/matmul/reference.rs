//! What the twins of the family share, in f64.

use super::{Params, WeightFormat};
use crate::activation::{gelu_erf, gelu_tanh, relu, silu};
use crate::case::hash;
use crate::quant::{Code, Scale, Zero, pack_row, quantize_row};
use crate::twin::TwinCall;

/// W `[N, 8 K8]` with K channels, from bindings w and w_scales.
pub(super) fn weights(call: &TwinCall<'_>, [w, w_scales]: [usize; 2], num_k: u32) -> Vec<f64> {
    WeightFormat::of(call.selection).rows(num_k, &call.buffers[w], &call.buffers[w_scales])
}

/// `Σ x w` over the channels of x.
pub(super) fn dot(x: &[f64], w: &[f64]) -> f64 {
    x.iter().zip(w).map(|(&x, &w)| x * w).sum()
}

/// The epilogue of one dispatch.
pub(super) struct Finish {
    pub act: u32,
    pub glu: bool,
    pub bias: Option<Vec<f32>>,
    pub residual: Option<Vec<f32>>,
    pub alpha: f32,
    pub soft_cap: f32,
    pub glu_alpha: f32,
    pub y_stride: u32,
}

impl Finish {
    /// Writes the columns from `n_base` on of a row of y.
    pub fn store(&self, y: &mut [f32], row: usize, n_base: usize, sums: &[f64]) {
        let affine = |i: usize| {
            let bias = self.bias.as_ref().map_or(0.0, |b| f64::from(b[n_base + i]));
            f64::from(self.alpha) * (sums[i] + bias)
        };
        let cap = f64::from(self.soft_cap);
        let act = |v: f64| match self.act {
            1 => silu(v),
            2 => gelu_erf(v),
            3 => gelu_tanh(v),
            4 => relu(v),
            5 => cap * (v / cap).tanh(),
            6 => v.min(cap) / (1.0 + (-f64::from(self.glu_alpha) * v.min(cap)).exp()),
            7 => silu(v.min(cap)),
            8 => silu(v).min(cap),
            _ => v,
        };
        let up = |v: f64| match self.act {
            6 => 1.0 + v.clamp(-cap, cap),
            7 | 8 => v.clamp(-cap, cap),
            _ => v,
        };
        let mut put = |column: usize, v: f64| {
            let at = row * self.y_stride as usize + column;
            y[at] = (v + self.residual.as_ref().map_or(0.0, |r| f64::from(r[at]))) as f32;
        };
        if self.glu {
            for i in (0..sums.len()).step_by(2) {
                put(n_base / 2 + i / 2, act(affine(i)) * up(affine(i + 1)));
            }
        } else {
            for i in 0..sums.len() {
                put(n_base + i, act(affine(i)));
            }
        }
    }
}

/// The epilogue that a selection asks for. `bias`: its buffer and the element where it begins.
pub(super) fn finish(
    call: &TwinCall<'_>,
    (bias, bias_at): (usize, u32),
    residual: usize,
    [alpha, soft_cap, glu_alpha]: [f32; 3],
    y_stride: u32,
) -> Finish {
    let has = |name: &str, binding: usize| call.selection.get_bool(name).then(|| call.get(binding));
    Finish {
        act: call.selection.get_u32("ACT").unwrap_or(0),
        glu: call.selection.get_bool("GLU"),
        bias: has("HAS_BIAS", bias).map(|all: Vec<f32>| all[bias_at as usize..].to_vec()),
        residual: has("HAS_RESIDUAL", residual),
        alpha,
        soft_cap,
        glu_alpha,
        y_stride,
    }
}

/// The same for a product, with the buffers that all have.
pub(super) fn finish_product(call: &TwinCall<'_>, p: &Params) -> Finish {
    finish(call, (3, p.bias_at), 4, [p.alpha, p.soft_cap, p.glu_alpha], p.y_stride)
}

/// Seeded weights `[N, K]` in a format and their scales, such that sums of K products are of the order of 1.
pub(super) fn seeded_weights(n: u32, k: u32, format: WeightFormat, seed: u32) -> [Vec<u8>; 2] {
    let scale = 1.0 / (k as f32).sqrt();
    let values = crate::case::seeded((n * k) as usize, seed);
    let rows = values.chunks_exact(k as usize);
    let WeightFormat::Quant(format) = format else {
        let mut bytes = Vec::new();
        for row in rows {
            for i in 0..k.next_multiple_of(8) as usize {
                let v = row.get(i).map_or(0.0, |v| v * scale);
                match format {
                    WeightFormat::F16 => bytes.extend(half::f16::from_f32(v).to_le_bytes()),
                    WeightFormat::Bf16 => bytes.extend(half::bf16::from_f32(v).to_le_bytes()),
                    _ => bytes.extend(v.to_le_bytes()),
                }
            }
        }
        return [bytes, vec![0; 4]];
    };
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for (i, row) in (0..).zip(rows) {
        let values: Vec<f32> = row.iter().map(|v| v.clamp(-1.0, 1.0) * scale).collect();
        let mut row = quantize_row(format, &values);
        // Scales that fit, and every code.
        for (code, j) in row.codes.iter_mut().zip(0..) {
            *code = (hash(i * k + j + seed) % (1 << format.code.bits())) as u8;
            if format.code == Code::E4m3 && *code & 0x7f == 0x7f {
                *code -= 1;
            }
        }
        if format.scale == Scale::F32 && format.zero == Zero::Point {
            row.zeros.iter_mut().for_each(|z| *z += 0.25);
        }
        pack_row(format, &row, &mut codes, &mut scales);
    }
    [codes, scales].map(|words| bytemuck::cast_slice(&words).to_vec())
}

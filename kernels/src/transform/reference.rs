//! The definition, in f64; quantisation in f32, as it is defined.

use super::num_blocks;
use super::pass::{BLOCK, Params};
use crate::twin::TwinCall;

pub(super) fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let s = call.selection;
    let vec = if s.get_part("lanes").is_some() { 4 } else { 1 };
    let n = p.num_channels as usize;
    let (x, w, b, scale): (Vec<f32>, Vec<f32>, Vec<f32>, Vec<f32>) =
        (call.get(0), call.get(1), call.get(2), call.get(3));
    let table: Vec<u32> = call.get(4);
    let p2: Vec<f32> = call.get(5);
    let mix = s.get_part("mix_none").unwrap_or_default();
    let quantized = s.get_bool("CODES");
    let mut floats: Vec<f32> = if quantized { Vec::new() } else { call.get(6) };
    let (mut codes, mut scales): (Vec<i8>, Vec<u32>) = (call.get(6), call.get(7));
    for (row, x) in x.chunks_exact(n).enumerate().take(p.num_rows as usize) {
        let mut v: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        let mean = if s.get_u32("NORM") == Some(2) { v.iter().sum::<f64>() / n as f64 } else { 0.0 };
        let squares = v.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
        let normed = s.get_u32("NORM") != Some(0);
        for (i, v) in v.iter_mut().enumerate() {
            if normed {
                *v = (*v - mean) / (squares + f64::from(p.eps)).sqrt() * f64::from(w[i]);
            }
            if s.get_bool("BIAS") {
                *v += f64::from(b[i]);
            }
            if s.get_bool("SCALE") {
                *v *= f64::from(scale[i]);
            }
        }
        match mix {
            "transform/mix_permute.wgsl" => v = (0..n).map(|i| v[table[i] as usize]).collect(),
            "transform/mix_hadamard.wgsl" => {
                let within = if s.get_bool("WITHIN") { 2 } else { 0 };
                for step in 0..p.butterfly_steps + within {
                    butterfly(&mut v, 1 << step);
                }
                for &[order, stride, place, _] in &p.stages[..p.num_stages as usize] {
                    let order = order as usize;
                    product(&mut v, order, (stride * vec) as usize, |from, to| {
                        let word = table[place as usize + to / 8 * order + from];
                        if word >> (to % 8) & 1 == 1 { -1.0 } else { 1.0 }
                    });
                }
            }
            "transform/mix_kronecker.wgsl" => {
                let (n1, n2) = (n / p.n2 as usize, p.n2 as usize);
                product(&mut v, n2, 1, |from, to| f64::from(p2[from * n2 + to]));
                product(&mut v, n1, n2, |from, to| f64::from(f32::from_bits(table[from * n1 + to])));
            }
            _ => {}
        }
        let mut v: Vec<f32> = v.iter().map(|v| (v * f64::from(p.gain)) as f32).collect();
        if s.get_bool("FAKE") {
            let blocks = num_blocks(p.num_channels) as usize;
            let (mut codes, mut scales) = (vec![0; 32 * blocks], vec![0; 2 * blocks]);
            quantize(&v, &p, &mut codes, &mut scales);
            for (i, v) in v.iter_mut().enumerate() {
                *v = f32::from(codes[i]) * f32::from_bits(scales[2 * (i / 32)]);
            }
        }
        if quantized {
            let blocks = num_blocks(p.num_channels) as usize;
            let codes = &mut codes[row * blocks * 32..][..blocks * 32];
            quantize(&v, &p, codes, &mut scales[row * blocks * 2..][..blocks * 2]);
        } else {
            floats[row * n..][..n].copy_from_slice(&v);
        }
    }
    if quantized {
        call.put(6, &codes);
        call.put(7, &scales);
    } else {
        call.put(6, &floats);
    }
}

fn quantize(v: &[f32], p: &Params, codes: &mut [i8], scales: &mut [u32]) {
    let block = BLOCK as usize;
    codes.fill(0);
    let group =
        if p.group_blocks == 0 { v.len().next_multiple_of(block) } else { p.group_blocks as usize * block };
    for (i, (v, codes)) in v.chunks(group).zip(codes.chunks_mut(group)).enumerate() {
        let amax = v.iter().fold(0.0, |m, v| f32::max(m, v.abs()));
        let scale = p.clip * amax / p.qmax;
        let scale = if scale < 1.2e-38 { 1.0 } else { scale };
        for (code, v) in codes.iter_mut().zip(v) {
            *code = (v / scale).round_ties_even().clamp(-p.qmax - 1.0, p.qmax) as i8;
        }
        for (b, codes) in codes.chunks_exact(block).enumerate() {
            let sum = |c: &[i8]| c.iter().map(|&c| i32::from(c)).sum::<i32>() as u32 & 0xffff;
            let at = 2 * (i * group / block + b);
            scales[at] = scale.to_bits();
            scales[at + 1] = sum(&codes[..16]) | sum(&codes[16..]) << 16;
        }
    }
}

fn butterfly(v: &mut [f64], half: usize) {
    for pair in v.chunks_exact_mut(2 * half) {
        let (a, b) = pair.split_at_mut(half);
        for (a, b) in a.iter_mut().zip(b) {
            (*a, *b) = (*a + *b, *a - *b);
        }
    }
}

fn product(v: &mut [f64], order: usize, stride: usize, coefficient: impl Fn(usize, usize) -> f64) {
    let m: Vec<f64> = (0..order * order).map(|i| coefficient(i % order, i / order)).collect();
    for block in v.chunks_exact_mut(order * stride) {
        for j in 0..stride {
            let column: Vec<f64> = (0..order).map(|k| block[k * stride + j]).collect();
            for (to, m) in m.chunks_exact(order).enumerate() {
                block[to * stride + j] = m.iter().zip(&column).map(|(m, v)| m * v).sum();
            }
        }
    }
}

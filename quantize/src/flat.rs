//! FlatQuant (Sun et al. 2025): a channel scale and two Kronecker factors per input, trained to keep the product.
//!
//! Layer by layer: `‖Q(x') Q(W')ᵀ - x Wᵀ‖²` over rows of the sample is minimised by Adam, with `x' = P1ᵀ (s ∘ X) P2`
//! and `W' = P1⁻¹ (W / s) P2⁻ᵀ`; rounding counts as the identity in gradients, clipping as constant. Training starts at
//! the training-free transform and keeps the iterate that is best in the measure the other methods are searched by.
//! Scales of weights are searched at the end, so only one clip ratio of weights takes part in training. A step sees some
//! rows of inputs and of weights, so its cost grows with K (n1 + n2), not with the size of the matrix.

use girih_kernels::quant::hadamard;
use girih_kernels::quant::kronecker::{factor_pair, inverse};
use girih_kernels::quant::{Format, QuantActivation};

use crate::random::Random;
use crate::search::Problem;
use crate::transform::{HostMix, Transformer};
use crate::{QuantizeError, dense, measure, parallel};

/// Steps of Adam.
const STEPS: usize = 400;
/// Steps between looks at the measure.
const LOOK: usize = 40;
/// Rows of the sample in a step.
const INPUTS: usize = 64;
/// Weights in a step, as far as that is 64 to 256 rows.
const WEIGHTS: usize = 1 << 17;
/// Largest Kronecker factor.
const MAX_FACTOR: u32 = 512;
/// Transforms whose condition number is this many times that of the start, or more, are not kept.
const MAX_CONDITION: f64 = 1e4;
/// Learning rates of log scales; of factors, relative to their entries; of clip logits.
const RATE: [f32; 3] = [1e-2, 6e-2, 5e-2];

/// How training rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rounding {
    /// To whole numbers, straight-through.
    Nearest,
    /// A smooth function with its true derivative: to check gradients.
    #[cfg(test)]
    Smooth,
}

impl Rounding {
    /// What `u` becomes, and the derivative.
    #[inline]
    fn apply(self, u: f32, top: f32) -> (f32, f32) {
        const MAGIC: f32 = 12_582_912.0;
        match self {
            Self::Nearest => {
                let inside = u >= -top - 1.0 && u <= top;
                ((u.clamp(-top - 1.0, top) + MAGIC) - MAGIC, if inside { 1.0 } else { 0.0 })
            }
            #[cfg(test)]
            Self::Smooth => (u + 0.3 * (3.0 * u).sin(), 1.0 + 0.9 * (3.0 * u).cos()),
        }
    }
}

/// A symmetric integer quantiser: `scale = share · max|v| / top` over groups.
#[derive(Clone, Copy, Debug)]
struct Quantizer {
    group: usize,
    top: f32,
}

impl Quantizer {
    /// Place of the largest magnitude of a group, the magnitude, the scale.
    fn scale(self, values: &[f32], share: f32) -> (usize, f32, f32) {
        let mut largest = (0, 0f32);
        for (i, v) in values.iter().enumerate() {
            if v.abs() > largest.1 {
                largest = (i, v.abs());
            }
        }
        let scale = if largest.1 == 0.0 { 1.0 } else { share * largest.1 / self.top };
        (largest.0, largest.1, scale)
    }

    fn forward(self, values: &[f32], share: f32, rounding: Rounding) -> Vec<f32> {
        let mut out = values.to_vec();
        parallel::for_rows(&mut out, self.group, |_, part| {
            for group in part.chunks_mut(self.group) {
                let scale = self.scale(group, share).2;
                for v in group.iter_mut() {
                    *v = scale * rounding.apply(*v / scale, self.top).0;
                }
            }
        });
        out
    }

    /// Turns the gradient of the output into that of the values; returns that of the share.
    fn backward(self, values: &[f32], share: f32, rounding: Rounding, gradient: &mut [f32]) -> f64 {
        let mut d_share = 0f64;
        for (values, gradient) in values.chunks(self.group).zip(gradient.chunks_mut(self.group)) {
            let (at, amax, scale) = self.scale(values, share);
            let mut d_scale = 0f64;
            for (v, g) in values.iter().zip(gradient.iter_mut()) {
                let u = v / scale;
                let (q, slope) = rounding.apply(u, self.top);
                d_scale += f64::from(*g * (q - u * slope));
                *g *= slope;
            }
            if amax > 0.0 {
                d_share += d_scale * f64::from(amax / self.top);
                gradient[at] += (d_scale as f32) * share / self.top * values[at].signum();
            }
        }
        d_share
    }
}

/// What is fixed during training.
struct Trainer {
    k: usize,
    n1: usize,
    n2: usize,
    signs: Vec<f32>,
    input: Option<Quantizer>,
    weight: Quantizer,
    rounding: Rounding,
}

/// Rows that went through the transform.
struct Mixed {
    scaled: Vec<f32>,
    /// `X P2`.
    half: Vec<f32>,
    out: Vec<f32>,
}

fn sigmoid(c: f32) -> f32 {
    1.0 / (1.0 + (-c).exp())
}

impl Trainer {
    /// Parameters: K logarithms of scales, P1, P2, clip logits of inputs and of weights.
    fn ranges(&self) -> [usize; 4] {
        let scales = self.k;
        let p1 = scales + self.n1 * self.n1;
        let p2 = p1 + self.n2 * self.n2;
        [scales, p1, p2, p2 + 2]
    }

    fn scales(&self, parameters: &[f32]) -> Vec<f32> {
        parameters[..self.k].iter().zip(&self.signs).map(|(log, sign)| sign * log.exp()).collect()
    }

    /// `p1ᵀ X p2` of rows.
    fn forward(&self, scaled: Vec<f32>, p1: &[f32], p2: &[f32]) -> Mixed {
        let (n1, n2, k) = (self.n1, self.n2, self.k);
        let half = dense::product(&scaled, p2, n2, n2);
        let left = dense::transposed(p1, n1);
        let mut out = vec![0f32; half.len()];
        parallel::for_rows(&mut out, k, |first, part| {
            for (r, out) in part.chunks_exact_mut(k).enumerate() {
                dense::add_product(out, &left, &half[(first + r) * k..][..k], n1, n2);
            }
        });
        Mixed { scaled, half, out }
    }

    /// From the gradient of `p1ᵀ X p2`: those of p1, p2 and X.
    fn backward(&self, mixed: &Mixed, gradient: &[f32], p1: &[f32], p2: &[f32]) -> [Vec<f32>; 3] {
        /// Rows that are summed on their own, whatever the number of threads.
        const RUN: usize = 16;
        let (n1, n2, k) = (self.n1, self.n2, self.k);
        let right = dense::transposed(p2, n2);
        let runs = parallel::map(gradient.len().div_ceil(RUN * k), |run| {
            let (mut d1, mut d2) = (vec![0f32; n1 * n1], vec![0f32; n2 * n2]);
            let rows = gradient[run * RUN * k..].chunks_exact(k).take(RUN);
            let mut d_input = Vec::with_capacity(RUN * k);
            for (r, gradient) in rows.enumerate() {
                let at = (run * RUN + r) * k;
                let (half, x) = (&mixed.half[at..at + k], &mixed.scaled[at..at + k]);
                dense::add_product(&mut d1, half, &dense::transposed(gradient, n2), n2, n1);
                let mut d_half = vec![0f32; k];
                dense::add_product(&mut d_half, p1, gradient, n1, n2);
                dense::add_outer_products(&mut d2, x, &d_half, n2, n2);
                let mut d_x = vec![0f32; k];
                dense::add_product(&mut d_x, &d_half, &right, n2, n2);
                d_input.extend(d_x);
            }
            (d1, d2, d_input)
        });
        let (mut d1, mut d2) = (vec![0f32; n1 * n1], vec![0f32; n2 * n2]);
        let mut d_input = Vec::with_capacity(gradient.len());
        for (a, b, x) in runs {
            d1.iter_mut().zip(a).for_each(|(d, a)| *d += a);
            d2.iter_mut().zip(b).for_each(|(d, b)| *d += b);
            d_input.extend(x);
        }
        [d1, d2, d_input]
    }

    /// Error of the product relative to the product, and its gradient. `None` where a factor is singular.
    fn loss(&self, parameters: &[f32], x: &[f32], w: &[f32]) -> Option<(f64, Vec<f32>)> {
        let k = self.k;
        let [e0, e1, e2, _] = self.ranges();
        let (p1, p2) = (&parameters[e0..e1], &parameters[e1..e2]);
        let (share_x, share_w) = (sigmoid(parameters[e2]), sigmoid(parameters[e2 + 1]));
        let inverse_transposed = |p: &[f32], n: usize| {
            let wide: Vec<f64> = p.iter().map(|v| f64::from(*v)).collect();
            let narrow: Vec<f32> = inverse(&wide, n).ok()?.into_iter().map(|v| v as f32).collect();
            Some(dense::transposed(&narrow, n))
        };
        let (q1, q2) = (inverse_transposed(p1, self.n1)?, inverse_transposed(p2, self.n2)?);
        let s = self.scales(parameters);
        let scaled = |rows: &[f32], f: &dyn Fn(f32, f32) -> f32| {
            rows.chunks_exact(k)
                .flat_map(|row| row.iter().zip(&s).map(|(v, s)| f(*v, *s)))
                .collect::<Vec<f32>>()
        };
        let xs = self.forward(scaled(x, &|v, s| v * s), p1, p2);
        let ws = self.forward(scaled(w, &|v, s| v / s), &q1, &q2);
        let xq = match self.input {
            Some(quantizer) => quantizer.forward(&xs.out, share_x, self.rounding),
            None => xs.out.clone(),
        };
        let wq = self.weight.forward(&ws.out, share_w, self.rounding);

        let exact = measure::product(x, w, k);
        let mut error = measure::product(&xq, &wq, k);
        error.iter_mut().zip(&exact).for_each(|(e, y)| *e -= y);
        let power = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        let signal = power(&exact).max(f64::MIN_POSITIVE);
        let loss = power(&error) / signal;
        for e in &mut error {
            *e = (2.0 * f64::from(*e) / signal) as f32;
        }

        let n = w.len() / k;
        let mut d_x = dense::product(&error, &wq, n, k);
        let mut d_w = dense::product(&dense::transposed(&error, n), &xq, x.len() / k, k);
        let d_share_x = self.input.map_or(0.0, |q| q.backward(&xs.out, share_x, self.rounding, &mut d_x));
        let d_share_w = self.weight.backward(&ws.out, share_w, self.rounding, &mut d_w);
        let [mut d1, mut d2, d_xs] = self.backward(&xs, &d_x, p1, p2);
        let [g1, g2, d_ws] = self.backward(&ws, &d_w, &q1, &q2);
        // Q = P⁻ᵀ: dP = -Q dQᵀ Q.
        for (d, g, q, n) in [(&mut d1, g1, &q1, self.n1), (&mut d2, g2, &q2, self.n2)] {
            let inner = dense::product(&dense::transposed(&g, n), q, n, n);
            d.iter_mut().zip(dense::product(q, &inner, n, n)).for_each(|(d, v)| *d -= v);
        }
        let mut d_log = vec![0f64; k];
        for (row, d) in xs.scaled.chunks_exact(k).zip(d_xs.chunks_exact(k)) {
            d_log.iter_mut().zip(row).zip(d).for_each(|((l, v), d)| *l += f64::from(v * d));
        }
        for (row, d) in ws.scaled.chunks_exact(k).zip(d_ws.chunks_exact(k)) {
            d_log.iter_mut().zip(row).zip(d).for_each(|((l, v), d)| *l -= f64::from(v * d));
        }
        let mut gradient: Vec<f32> = d_log.iter().map(|d| *d as f32).collect();
        gradient.extend(d1);
        gradient.extend(d2);
        gradient.push(d_share_x as f32 * share_x * (1.0 - share_x));
        gradient.push(d_share_w as f32 * share_w * (1.0 - share_w));
        Some((loss, gradient))
    }

    fn candidate(&self, parameters: &[f32], activation: QuantActivation) -> Result<Candidate, QuantizeError> {
        let [e0, e1, e2, _] = self.ranges();
        let mix = HostMix::Kronecker {
            n1: self.n1 as u32,
            n2: self.n2 as u32,
            p1: parameters[e0..e1].to_vec(),
            p2: parameters[e1..e2].to_vec(),
        };
        let activation = match activation {
            // Three digits, so that the name of the activation gives it back.
            QuantActivation::Int { bits, group, .. } => QuantActivation::Int {
                bits,
                group,
                clip: (1000.0 * sigmoid(parameters[e2])).round() / 1000.0,
            },
            QuantActivation::Float => activation,
        };
        Ok((Transformer::new(self.k, Some(self.scales(parameters)), mix)?, activation))
    }
}

type Candidate = (Transformer, QuantActivation);

/// `Q [n, n]` of a Hadamard matrix over its root, or a random orthogonal one where there is none.
fn orthogonal(n: usize, random: &mut Random) -> Vec<f32> {
    let mut rows = vec![0f64; n * n];
    if let Some(plan) = hadamard::plan(n as u32) {
        (0..n).for_each(|i| rows[i * n + i] = 1.0);
        plan.apply(&mut rows, true);
    } else {
        for v in &mut rows {
            *v = random.normal();
        }
        for i in 0..n {
            let (above, rest) = rows.split_at_mut(i * n);
            let row = &mut rest[..n];
            for _ in 0..2 {
                for other in above.chunks_exact(n) {
                    let overlap: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
                    row.iter_mut().zip(other).for_each(|(a, b)| *a -= overlap * b);
                }
            }
            let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            for v in row {
                *v /= length;
            }
        }
    }
    rows.into_iter().map(|v| v as f32).collect()
}

/// Adam with a cosine schedule.
struct Adam {
    mean: Vec<f32>,
    square: Vec<f32>,
}

impl Adam {
    fn step(&mut self, t: usize, parameters: &mut [f32], gradient: &[f32], rate: impl Fn(usize) -> f32) {
        let (b1, b2) = (0.9f32, 0.98f32);
        let schedule = 0.5 * (1.0 + (std::f64::consts::PI * t as f64 / STEPS as f64).cos()).max(2e-3);
        let (c1, c2) = (1.0 - b1.powi(t as i32 + 1), 1.0 - b2.powi(t as i32 + 1));
        for (i, (p, g)) in parameters.iter_mut().zip(gradient).enumerate() {
            self.mean[i] = b1 * self.mean[i] + (1.0 - b1) * g;
            self.square[i] = b2 * self.square[i] + (1.0 - b2) * g * g;
            let direction = self.mean[i] / c1 / ((self.square[i] / c2).sqrt() + 1e-12);
            *p -= rate(i) * schedule as f32 * direction;
        }
    }
}

/// Trains from a channel scale (with signs). `start` is what training must beat: it is returned if nothing does, or if
/// there can be no training, with a note that says why.
pub fn train(
    problem: &Problem,
    sample: &[f32],
    weights: &[&[f32]],
    scale: &[f32],
    start: Candidate,
    seed: u64,
) -> Result<(Candidate, Option<String>), QuantizeError> {
    let instead = |why: String| Some(format!("flat-free instead of flat: {why}"));
    let k = problem.k;
    let (n1, n2) = factor_pair(k as u32);
    if n2 > MAX_FACTOR || k < 4 {
        let why = format!("{k} channels have no two factors of up to {MAX_FACTOR} that are worth training");
        return Ok((start, instead(why)));
    }
    let top = |bits: u32| (1u32 << (bits - 1)) as f32 - 1.0;
    let input = match start.1 {
        QuantActivation::Float => None,
        QuantActivation::Int { bits, group, .. } => Some(Quantizer {
            group: if group == Format::ROW { k } else { k.min(group as usize) },
            top: top(bits.into()),
        }),
    };
    let group = if problem.format.group == Format::ROW { k } else { k.min(problem.format.group as usize) };
    let weight = Quantizer { group, top: top(problem.format.code.bits()) };
    let mut random = Random::new(seed ^ 0x666c_6174);
    let (n1, n2) = (n1 as usize, n2 as usize);
    let signs = scale.iter().map(|s| s.signum()).collect();
    let trainer = Trainer { k, n1, n2, signs, input, weight, rounding: Rounding::Nearest };
    let mut parameters: Vec<f32> = scale.iter().map(|s| s.abs().ln()).collect();
    parameters.extend(orthogonal(n1, &mut random));
    parameters.extend(orthogonal(n2, &mut random));
    let logit = |share: f32| (share / (1.0 - share)).ln();
    let share = if let QuantActivation::Int { clip, .. } = start.1 { clip.clamp(0.05, 0.98) } else { 0.98 };
    parameters.push(logit(share));
    parameters.push(logit(0.9));

    // Groups of a row that is not whole would straddle rows in training: such formats are only searched.
    if !k.is_multiple_of(group) || trainer.input.is_some_and(|q| !k.is_multiple_of(q.group)) {
        return Ok((start, instead(format!("{k} channels are no whole number of groups of {group}"))));
    }
    let rows: Vec<&[f32]> = weights.iter().flat_map(|w| w.chunks_exact(k)).collect();
    let inputs: Vec<&[f32]> = sample.chunks_exact(k).collect();
    let batch = (WEIGHTS / k).clamp(64, 256).min(rows.len());
    let [e0, e1, e2, end] = trainer.ranges();
    let rate = |i: usize| match i {
        i if i < e0 => RATE[0],
        i if i < e1 => RATE[1] / (n1 as f32).sqrt(),
        i if i < e2 => RATE[1] / (n2 as f32).sqrt(),
        _ => RATE[2],
    };
    let mut adam = Adam { mean: vec![0.0; end], square: vec![0.0; end] };
    let mut best = (problem.error(&start.0, start.1), start.clone());
    let untrained = best.0;
    let mut consider = |parameters: &[f32]| -> Result<(), QuantizeError> {
        let Ok((transformer, activation)) = trainer.candidate(parameters, start.1) else { return Ok(()) };
        if transformer.condition() < MAX_CONDITION * start.0.condition() {
            let error = problem.error(&transformer, activation);
            if error < best.0 {
                best = (error, (transformer, activation));
            }
        }
        Ok(())
    };
    let mut pick = |from: &[&[f32]], count: usize| -> Vec<f32> {
        (0..count).flat_map(|_| from[random.below(from.len() as u64) as usize].iter().copied()).collect()
    };
    for t in 0..STEPS {
        if t % LOOK == 0 {
            consider(&parameters)?;
        }
        let (x, w) = (pick(&inputs, INPUTS.min(inputs.len())), pick(&rows, batch));
        let Some((_, gradient)) = trainer.loss(&parameters, &x, &w) else { break };
        if gradient.iter().any(|g| !g.is_finite()) {
            break;
        }
        adam.step(t, &mut parameters, &gradient, rate);
    }
    consider(&parameters)?;
    let note = if best.0 < untrained { None } else { instead("training found nothing better".to_owned()) };
    Ok((best.1, note))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Directional derivatives of the loss with a smooth quantiser against central differences, per kind of parameter.
    #[test]
    fn gradients() {
        let (n1, n2) = (4, 6);
        let k = n1 * n2;
        let mut random = Random::new(12);
        let mut normal = |n: usize| (0..n).map(|_| random.normal() as f32).collect::<Vec<f32>>();
        let (x, w) = (normal(5 * k), normal(6 * k));
        let signs = normal(k).iter().map(|v| v.signum()).collect();
        let input = Some(Quantizer { group: k, top: 7.0 });
        let weight = Quantizer { group: 12, top: 7.0 };
        let trainer = Trainer { k, n1, n2, signs, input, weight, rounding: Rounding::Smooth };
        let mut parameters: Vec<f32> = normal(k).iter().map(|v| 0.3 * v).collect();
        for n in [n1, n2] {
            let noise = normal(n * n);
            parameters.extend((0..n * n).map(|i| 0.2 * noise[i] + if i / n == i % n { 1.0 } else { 0.0 }));
        }
        parameters.extend([1.5, 1.0]);
        let (_, gradient) = trainer.loss(&parameters, &x, &w).expect("it is invertible");
        let [e0, e1, e2, end] = trainer.ranges();
        for range in [0..e0, e0..e1, e1..e2, e2..e2 + 1, e2 + 1..end] {
            for _ in 0..3 {
                let direction: Vec<f32> = normal(range.len());
                let along: f64 = range.clone().zip(&direction).map(|(i, d)| f64::from(gradient[i] * d)).sum();
                let at = |step: f32| {
                    let mut moved = parameters.clone();
                    range.clone().zip(&direction).for_each(|(i, d)| moved[i] += step * d);
                    trainer.loss(&moved, &x, &w).expect("it is invertible").0
                };
                let h = 2e-4;
                let difference = (at(h) - at(-h)) / (2.0 * f64::from(h));
                let error = (along - difference).abs() / (along.abs() + difference.abs() + 1e-3);
                assert!(error < 0.02, "{range:?}: {along} {difference}");
            }
        }
    }

    #[test]
    fn orthogonal_factors() {
        for n in [1, 4, 6, 12, 15] {
            let q = orthogonal(n, &mut Random::new(1));
            for i in 0..n {
                for j in 0..n {
                    let dot: f32 = (0..n).map(|c| q[i * n + c] * q[j * n + c]).sum();
                    assert!((dot - if i == j { 1.0 } else { 0.0 }).abs() < 1e-5);
                }
            }
        }
    }
}

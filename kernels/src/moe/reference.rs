//! The definition of a router, in f64, with keys rounded to f32 as kernels compare them.

use super::{Choose, Groups, NONE, Normalise, Router, Score, Weight};

/// Order of f32 as order of u32: NaN is 0, below everything; -0 equals 0.
pub(super) fn order_key(x: f32) -> u32 {
    let bits = if x == 0.0 { 0 } else { x.to_bits() };
    match bits >> 31 {
        _ if x.is_nan() => 0,
        1 => !bits,
        _ => bits | 0x8000_0000,
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `exp(l - top)`, of infinite logits too.
fn exp_below(l: f64, top: f64) -> f64 {
    if l == f64::NEG_INFINITY {
        0.0
    } else if l == top {
        1.0
    } else {
        (l - top).exp()
    }
}

fn softmax_terms(logits: &[f64]) -> Vec<f64> {
    let top = logits.iter().copied().filter(|l| !l.is_nan()).fold(f64::NEG_INFINITY, f64::max);
    let terms: Vec<f64> = logits.iter().map(|&l| if l.is_nan() { 0.0 } else { exp_below(l, top) }).collect();
    let sum: f64 = terms.iter().sum();
    terms.into_iter().map(|v| if sum > 0.0 { v / sum } else { v }).collect()
}

/// The best of some (key, index) pairs, best first: the larger key, the lower index among equals; those without a key not.
fn best(mut of: Vec<(u32, usize)>, count: usize) -> Vec<usize> {
    of.retain(|&(key, _)| key > 0);
    of.sort_by_key(|&(key, i)| (std::cmp::Reverse(key), i));
    of.truncate(count);
    of.into_iter().map(|(_, i)| i).collect()
}

/// Keys with those of groups that are not kept taken away, or set to that of zero.
fn limit(keys: &mut [u32], groups: Groups) {
    let Groups::Limited { groups, keep, two_best, fill_zero } = groups else { return };
    let size = keys.len() / groups as usize;
    let value = |key: u32| match key {
        0 => f32::MIN,
        key if key >> 31 == 1 => f32::from_bits(key & 0x7fff_ffff),
        key => f32::from_bits(!key),
    };
    let key_of = |group: &[u32]| {
        let mut sorted = group.to_vec();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        let second = sorted.get(1).copied().unwrap_or(0);
        if two_best { order_key(value(sorted[0]) + value(second)) } else { sorted[0] }
    };
    let of_groups: Vec<(u32, usize)> = keys.chunks(size).map(key_of).zip(0..).collect();
    let better = |a: (u32, usize), b: (u32, usize)| a.0 > b.0 || (a.0 == b.0 && a.1 < b.1);
    for (g, keys) in keys.chunks_mut(size).enumerate() {
        let rank = of_groups.iter().filter(|&&other| better(other, of_groups[g])).count();
        if rank >= keep as usize {
            for key in keys {
                *key = if fill_zero && *key > 0 { 0x8000_0000 } else { 0 };
            }
        }
    }
}

/// Scores of the logits of a token; of what is no number, itself.
pub(super) fn scores(score: Score, logits: &[f32]) -> Vec<f64> {
    let wide: Vec<f64> = logits.iter().map(|&l| l.into()).collect();
    match score {
        Score::Softmax => softmax_terms(&wide),
        Score::Sigmoid => wide.iter().map(|&l| sigmoid(l)).collect(),
        Score::SqrtSoftplus => wide.iter().map(|&l| ((-l.abs()).exp().ln_1p() + l.max(0.0)).sqrt()).collect(),
        Score::Logit => wide,
    }
}

/// Expert and weight of each slot of a token with these logits.
pub(super) fn route(
    router: &Router,
    logits: &[f32],
    bias: Option<&[f32]>,
    expert_scale: Option<&[f32]>,
) -> Vec<(u32, f64)> {
    let wide: Vec<f64> = logits.iter().map(|&l| l.into()).collect();
    let mut scores = scores(router.score, logits);
    let with_bias = |e: usize| scores[e] + bias.map_or(0.0, |b| f64::from(b[e]));
    let biased: Vec<f64> = (0..scores.len()).map(with_bias).collect();
    let key_of = |(&l, &key): (&f32, &f64)| if l.is_nan() { 0 } else { order_key(key as f32) };
    let mut keys: Vec<u32> = logits.iter().zip(&biased).map(key_of).collect();
    if router.bias_in_weight {
        scores = biased;
    }
    limit(&mut keys, router.groups);
    let pairs = |range: std::ops::Range<usize>| range.map(|e| (keys[e], e)).collect::<Vec<_>>();
    let k = router.k as usize;
    let mut chosen: Vec<Option<usize>> = Vec::new();
    let groups = if let Groups::Each { groups } = router.groups { groups as usize } else { 1 };
    let size = keys.len() / groups;
    for g in 0..groups {
        let mut of: Vec<Option<usize>> =
            best(pairs(g * size..(g + 1) * size), k / groups).into_iter().map(Some).collect();
        of.resize(k / groups, None);
        chosen.extend(of);
    }
    let mut weights: Vec<f64> = chosen.iter().map(|e| e.map_or(0.0, |e| scores[e])).collect();
    match (router.choose, router.weight) {
        (Choose::SparseMixer { eps }, _) => {
            for (j, weight) in weights.iter_mut().enumerate() {
                let left_out = if j == 1 { chosen[0] } else { None };
                *weight = chosen[j].map_or(0.0, |top| mixer_weight(&wide, top, left_out, eps));
            }
        }
        (Choose::Best, Weight::Score) => {}
        (Choose::Best, Weight::Softmax) => {
            let numbers: Vec<f64> = chosen.iter().map(|e| e.map_or(f64::NAN, |e| scores[e])).collect();
            weights = softmax_terms(&numbers);
        }
        (Choose::Best, Weight::Sigmoid) => {
            weights.iter_mut().zip(&chosen).filter(|(_, e)| e.is_some()).for_each(|(w, _)| *w = sigmoid(*w));
        }
    }
    let first_weightless = keys.len() - router.weightless as usize;
    for (weight, _) in
        weights.iter_mut().zip(&chosen).filter(|(_, e)| e.is_some_and(|e| e >= first_weightless))
    {
        *weight = 0.0;
    }
    let sum: f64 = weights.iter().sum();
    let divisor = match router.normalise {
        Normalise::None => 1.0,
        Normalise::Sum { eps } => sum + f64::from(eps),
        Normalise::AtLeast { least } => sum.max(least.into()),
    };
    let finish = |(e, w): (Option<usize>, f64)| match e {
        None => (NONE, 0.0),
        Some(e) if divisor == 0.0 => (e as u32, 0.0),
        Some(e) => {
            let factor = expert_scale.map_or(1.0, |s| f64::from(s[e]));
            (e as u32, w / divisor * f64::from(router.scale) * factor)
        }
    };
    chosen.into_iter().zip(weights).map(finish).collect()
}

/// The share of an expert in the softmax of the logits that are near enough to its own.
fn mixer_weight(logits: &[f64], top: usize, left_out: Option<usize>, eps: f32) -> f64 {
    let m = logits[top];
    let near = |l: f64| {
        let (below, bound) = (m - l, l.abs().max(m));
        (below == 0.0 && bound == 0.0) || below <= 2.0 * f64::from(eps) * bound
    };
    let kept = (0..logits.len()).filter(|&e| Some(e) != left_out && near(logits[e]));
    let sum: f64 = kept.map(|e| exp_below(logits[e], m)).sum();
    if sum > 0.0 { 1.0 / sum } else { 0.0 }
}

//! How well a cache of experts suits a model: measures of what its router chose, token by token (arXiv 2505.16056).

use std::collections::HashMap;

use crate::network::experts::{Eviction, Uses};
use crate::run::routing::LayerRouting;

/// Segment routing best performance: how well one set of experts serves a window of tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Srp {
    /// `2 M / (P + A)`, the largest over all thresholds.
    pub f1: f64,
    /// Tokens of a window that must choose an expert for it to be held there; the smallest that gives the best F1.
    pub threshold: usize,
    /// `P / A`: experts that are held for each that is used.
    pub ratio: f64,
}

/// SRP of a trace: of every window of `window` tokens, f is the number of its tokens that choose an expert, of `experts`. An expert
/// is held for a window where f reaches a threshold. With M the sum of f over what is held, P the window times the number
/// of what is held, A the sum of all f: `F1 = 2 M / (P + A)`, maximised over the threshold. `None` for traces that are
/// shorter than a window, or in which none of the experts is chosen.
pub fn srp(trace: &[Vec<u32>], experts: &[u32], window: usize) -> Option<Srp> {
    if window == 0 || trace.len() < window {
        return None;
    }
    // How many pairs of window and expert there are, by f.
    let mut pairs = vec![0u64; window + 1];
    for tokens in trace.windows(window) {
        for expert in experts {
            pairs[tokens.iter().filter(|chosen| chosen.contains(expert)).count()] += 1;
        }
    }
    let sum = |from: usize| -> u64 { (from..=window).map(|f| f as u64 * pairs[f]).sum() };
    let all = sum(0);
    if all == 0 {
        return None;
    }
    let mut best: Option<Srp> = None;
    for threshold in 1..=window {
        let held: u64 = window as u64 * pairs[threshold..].iter().sum::<u64>();
        let f1 = 2.0 * sum(threshold) as f64 / (held + all) as f64;
        if best.is_none_or(|best| f1 > best.f1) {
            best = Some(Srp { f1, threshold, ratio: held as f64 / all as f64 });
        }
    }
    best
}

/// What a cache keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// What a real one would.
    Past(Eviction),
    /// The experts that the next so many tokens choose most often; among those, the ones that were used last. With these,
    /// [`hits`] is SCH, the segment cache best hit rate.
    Next(usize),
}

/// How many choices of a trace, of how many, find their expert in a cache of `places`, which is empty at first. A choice is a hit if
/// the expert was there before its token; after a token the cache keeps the best of what was there and what was chosen.
pub fn hits(trace: &[Vec<u32>], places: usize, keep: Keep) -> (u64, u64) {
    let mut held: Vec<u32> = Vec::new();
    let mut uses: HashMap<u32, Uses> = HashMap::new();
    let (mut found, mut all) = (0, 0);
    for (i, chosen) in trace.iter().enumerate() {
        all += chosen.len() as u64;
        found += chosen.iter().filter(|expert| held.contains(expert)).count() as u64;
        for &expert in chosen {
            let uses = uses.entry(expert).or_default();
            uses.count += 1;
            uses.last = i as u64 + 1;
            if !held.contains(&expert) {
                held.push(expert);
            }
        }
        let rank = |expert: &u32| {
            let uses = uses.get(expert).copied().unwrap_or_default();
            match keep {
                Keep::Past(eviction) => eviction.rank(uses),
                Keep::Next(tokens) => {
                    let soon = trace[i + 1..].iter().take(tokens);
                    [soon.filter(|chosen| chosen.contains(expert)).count() as u64, uses.last]
                }
            }
        };
        held.sort_by_key(|expert| (std::cmp::Reverse(rank(expert)), *expert));
        held.truncate(places);
    }
    (found, all)
}

/// Locality of a layer, or of several: the mean of theirs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Locality {
    /// Tokens of a window.
    pub window: usize,
    /// [`srp`] of all experts together: its F1.
    pub srp: f64,
    /// Of the same, experts that are held for each that is used.
    pub srp_ratio: f64,
    /// Hit rates of caches of so many times the experts of a token.
    pub caches: Vec<CacheRates>,
}

/// Hit rates of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CacheRates {
    /// Places for each expert of a token.
    pub rho: usize,
    /// SCH: with a look at the next window.
    pub sch: f64,
    /// Of the longest unused expert making room.
    pub lru: f64,
    /// Of the least often used one.
    pub lfu: f64,
}

impl Locality {
    /// Of the layers of a routing, with caches of 1 to 3 times the experts of a token; `None` if the trace is shorter than a window.
    pub fn of(layers: &[LayerRouting], window: usize) -> Option<Self> {
        let mut all = Self { window, ..Self::default() };
        for layer in layers {
            let trace: Vec<Vec<u32>> =
                layer.tokens.iter().map(|slots| slots.iter().map(|slot| slot.0).collect()).collect();
            let experts: Vec<u32> = (0..layer.experts).collect();
            let srp = srp(&trace, &experts, window)?;
            all.srp += srp.f1 / layers.len() as f64;
            all.srp_ratio += srp.ratio / layers.len() as f64;
            let per_token = trace.iter().map(Vec::len).max().unwrap_or(0);
            for rho in 1..=3 {
                let rate = |keep| {
                    let (found, all) = hits(&trace, rho * per_token, keep);
                    found as f64 / all.max(1) as f64 / layers.len() as f64
                };
                let [sch, lru, lfu] =
                    [Keep::Next(window), Keep::Past(Eviction::Lru), Keep::Past(Eviction::Lfu)].map(rate);
                match all.caches.get_mut(rho - 1) {
                    Some(rates) => {
                        rates.sch += sch;
                        rates.lru += lru;
                        rates.lfu += lfu;
                    }
                    None => all.caches.push(CacheRates { rho, sch, lru, lfu }),
                }
            }
        }
        (!layers.is_empty()).then_some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The trace of the digest (2.7): 6 experts, 2 of each token.
    fn trace() -> Vec<Vec<u32>> {
        let tokens =
            [[0, 1], [0, 2], [0, 1], [3, 1], [3, 4], [3, 4], [0, 4], [0, 1], [0, 1], [2, 1], [0, 1], [0, 3]];
        tokens.iter().map(|chosen| chosen.to_vec()).collect()
    }

    #[test]
    fn srp_is_that_of_the_digest() {
        let is = |experts: &[u32], f1: f64, threshold: usize, ratio: f64| {
            let got = srp(&trace(), experts, 4).expect("a trace");
            assert!((got.f1 - f1).abs() < 1e-6 && (got.ratio - ratio).abs() < 1e-4, "{experts:?}: {got:?}");
            assert_eq!(got.threshold, threshold, "{experts:?}");
        };
        is(&[0, 1, 2, 3, 4, 5], 0.725, 2, 1.2222);
        is(&[0], 0.775_510, 2, 1.3333);
        is(&[1], 0.775_510, 2, 1.3333);
        is(&[2], 0.4, 1, 4.0);
        is(&[3], 0.689_655, 2, 1.230_769);
        is(&[4], 0.714_286, 2, 1.3333);
        assert_eq!(srp(&trace(), &[5], 4), None);
        assert_eq!(srp(&trace(), &[0], 13), None);
        assert_eq!(srp(&trace(), &[0], 0), None);
    }

    #[test]
    fn hits_are_those_of_the_digest() {
        for (places, lru, lfu, next) in [(2, 13, 10, 15), (3, 15, 14, 16), (4, 17, 18, 18)] {
            let of = |keep| hits(&trace(), places, keep);
            assert_eq!(of(Keep::Past(Eviction::Lru)), (lru, 24), "{places} places, lru");
            assert_eq!(of(Keep::Past(Eviction::Lfu)), (lfu, 24), "{places} places, lfu");
            assert_eq!(of(Keep::Next(4)), (next, 24), "{places} places, look-ahead");
        }
        assert_eq!(hits(&[], 2, Keep::Next(4)), (0, 0));
    }

    #[test]
    fn locality_is_the_mean_of_layers() {
        let layer = |layer, tokens: Vec<Vec<u32>>| LayerRouting {
            layer,
            experts: 6,
            tokens: tokens.into_iter().map(|chosen| chosen.into_iter().map(|e| (e, 0.5)).collect()).collect(),
        };
        let same = layer(1, vec![vec![0, 1]; 12]);
        let got = Locality::of(&[layer(0, trace()), same], 4).expect("long enough");
        assert!((got.srp - f64::midpoint(0.725, 1.0)).abs() < 1e-9, "{got:?}");
        let lru = |hits: f64| f64::midpoint(hits / 24.0, 22.0 / 24.0);
        assert!((got.caches[0].lru - lru(13.0)).abs() < 1e-9 && (got.caches[1].lru - lru(17.0)).abs() < 1e-9);
        assert!((got.caches[0].lfu - lru(10.0)).abs() < 1e-9 && (got.caches[0].sch - lru(15.0)).abs() < 1e-9);
        assert_eq!(Locality::of(&[], 4), None);
        assert_eq!(Locality::of(&[layer(0, trace())], 13), None);
    }
}

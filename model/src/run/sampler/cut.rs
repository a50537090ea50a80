//! Which of the likely tokens are kept: rules on the shape of the distribution. Tokens come most likely first; what
//! is kept stays so.

/// Tokens that `top_h` looks at.
const TOP_H_TOKENS: usize = 100;

/// Tokens and their weights, most likely first: probabilities up to a factor.
pub(super) type Kept = Vec<(u32, f64)>;

/// `p` and `-ln p` of each token.
fn surprise(kept: &[(u32, f64)]) -> impl Iterator<Item = (f64, f64)> {
    let sum: f64 = kept.iter().map(|t| t.1).sum();
    kept.iter().map(move |t| (t.1 / sum, -(t.1 / sum).ln()))
}

fn entropy(kept: &[(u32, f64)]) -> f64 {
    surprise(kept).filter(|(p, _)| *p > 0.0).map(|(p, bits)| p * bits).sum()
}

/// Keeps tokens as long as their share of the entropy of the 100 most likely ones sums to `share` at most.
pub(super) fn top_h(kept: &mut Kept, share: f64) {
    kept.truncate(TOP_H_TOKENS);
    let limit = entropy(kept) * share;
    let mut sum = 0.0;
    let within = surprise(kept)
        .take_while(|&(p, bits)| {
            sum += if p > 0.0 { p * bits } else { 0.0 };
            sum <= limit
        })
        .count();
    kept.truncate(within.max(1));
}

/// Keeps tokens whose surprise is nearest to the expected one, until they have `mass` together.
pub(super) fn typical(kept: &mut Kept, mass: f64) {
    let expected = entropy(kept);
    let far: Vec<(f64, f64)> = surprise(kept).map(|(p, bits)| (p, (bits - expected).abs())).collect();
    let mut order: Vec<usize> = (0..far.len()).collect();
    order.sort_by(|&a, &b| far[a].1.total_cmp(&far[b].1));
    let mut sum = 0.0;
    let below = order.iter().filter(|&&i| {
        sum += far[i].0;
        sum < mass
    });
    let last = below.count().min(order.len().saturating_sub(1));
    let Some(border) = order.get(last).map(|&i| far[i].1) else { return };
    let mut places = far.iter();
    kept.retain(|_| places.next().is_some_and(|f| f.1 <= border));
}

/// Keeps tokens of at least that probability, and the most likely ones.
pub(super) fn epsilon(kept: &mut Kept, least: f64) {
    let Some(most) = kept.first().map(|t| t.1) else { return };
    let least = least * kept.iter().map(|t| t.1).sum::<f64>();
    kept.retain(|t| t.1 >= least || t.1 >= most);
}

/// As [`epsilon`], with less where the distribution is flat: `min(e, sqrt(e) exp(-entropy))`.
pub(super) fn eta(kept: &mut Kept, e: f64) {
    let least = e.min(e.sqrt() * (-entropy(kept)).exp());
    epsilon(kept, least);
}

//! Mixture of experts: which experts a token goes to, and in which order tokens come to an expert.
//!
//! A *slot* is one choice of one token: slot `t K + j` is the j-th expert of token t. What belongs to slots lies in that order,
//! whatever path computes it. *Routes* `[T, K, 2]` hold for each slot the expert, or [`NONE`], and the bits of its f32 weight.
//! The products of experts are of the family [`matmul`](crate::matmul).

pub mod choose_tokens;
pub mod combine;
pub mod group;
pub mod gru;
pub mod null_experts;
pub mod random;
mod reference;
pub mod route;
pub mod scores;

pub use route::{MAX_EXPERTS, MAX_SLOTS};

use crate::caps::Caps;
use crate::rows;

/// Grid and `grid_x` of a kernel with an invocation for each token.
fn token_grid(caps: &Caps, tokens: u32, wg: u32) -> [u32; 3] {
    rows::row_grid(caps, tokens.div_ceil(wg))
}

/// Bytes of workgroup memory of an array of so many words: each begins at a multiple of 16.
fn array_bytes(words: u32) -> u32 {
    (4 * words).next_multiple_of(16)
}

/// Expert of a slot that has none: too few logits were numbers.
pub const NONE: u32 = u32::MAX;

/// How the logits of a token become scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Score {
    /// `exp(l - max) / Σ exp(l - max)` over all experts.
    #[default]
    Softmax,
    /// `1 / (1 + exp(-l))`
    Sigmoid,
    /// `sqrt(log(1 + exp(l)))`
    SqrtSoftplus,
    /// The logit.
    Logit,
}

/// What experts may be chosen together. Groups are runs of `E / groups` experts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Groups {
    /// All of them.
    #[default]
    Any,
    /// Those of the `keep` best groups.
    Limited {
        /// Number of groups.
        groups: u32,
        /// Groups that are kept.
        keep: u32,
        /// Whether a group counts as much as the sum of its two best keys, or as its best.
        two_best: bool,
        /// Whether experts of other groups get the key 0 (DeepSeek-V2) in place of minus infinity.
        fill_zero: bool,
    },
    /// `K / groups` of each group (Pangu Pro, 2505.21411).
    Each {
        /// Number of groups.
        groups: u32,
    },
}

/// What the weight of a chosen expert is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Weight {
    /// Its score.
    #[default]
    Score,
    /// Softmax of the scores of the chosen ones.
    Softmax,
    /// Sigmoid of its score.
    Sigmoid,
}

/// How the weights of a token are normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Normalise {
    /// Not at all.
    #[default]
    None,
    /// `w / (Σ w + eps)`
    Sum {
        /// Added to the sum.
        eps: f32,
    },
    /// `w / max(Σ w, least)`
    AtLeast {
        /// Least divisor.
        least: f32,
    },
}

/// How experts are chosen by their keys.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Choose {
    /// The K largest keys; the lower index among equals.
    #[default]
    Best,
    /// Phi-3.5-MoE: the two largest logits; the weight of each is its softmax among those left whose distance to it is at most
    /// `2 eps` of `max(|l|, largest)`, the first one taken out for the second.
    SparseMixer {
        /// `router_jitter_noise`
        eps: f32,
    },
}

/// A router: what becomes of the logits of a token. A family of models is one value of this.
///
/// `key = score + bias`, groups, the K best keys; `weight = score` (with the bias, if `bias_in_weight`), what [`Weight`] says,
/// 0 for the last `weightless` experts, what [`Normalise`] says, times `scale`, times the factor of the expert.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Router {
    /// Experts E.
    pub experts: u32,
    /// Experts of a token K.
    pub k: u32,
    /// From logits to scores.
    pub score: Score,
    /// What may be chosen.
    pub groups: Groups,
    /// How.
    pub choose: Choose,
    /// What weights are made of.
    pub weight: Weight,
    /// Whether the bias of the choice is part of the weight (LLaDA-MoE).
    pub bias_in_weight: bool,
    /// The last so many experts weigh nothing, before weights are normalised: the zero experts of MoE++ (2410.07348), the class
    /// that skips of ZAYA.
    pub weightless: u32,
    /// How weights are normalised.
    pub normalise: Normalise,
    /// Factor of all weights.
    pub scale: f32,
}

/// Softmax over all experts, weights as they come, no experts yet.
impl Default for Router {
    fn default() -> Self {
        Self {
            experts: 0,
            k: 0,
            score: Score::Softmax,
            groups: Groups::Any,
            choose: Choose::Best,
            weight: Weight::Score,
            bias_in_weight: false,
            weightless: 0,
            normalise: Normalise::None,
            scale: 1.0,
        }
    }
}

/// Experts without weights: what they give is known of their kind. They stand behind those with weights: ids from `experts` on
/// are first `constant`, then `copy`, then zero experts, as many as there are.
///
/// MoE++ (2410.07348) has two constant experts, one that copies and one of zero; `LongCat-Flash` has copies only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NullExperts {
    /// `a_1 x + a_2 v` with `a = softmax(W_c x)`, W_c `[2, D]` and v `[D]` of the expert.
    pub constant: u32,
    /// x
    pub copy: u32,
}

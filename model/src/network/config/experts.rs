//! Mixtures of experts: how many, how wide, in which layers.

use girih_ops::moe::{Groups, Normalise, Score};
use serde_json::Value;

use super::class::{Class, Shared, Sparse};
use super::fields::{Fields, bad, whole};
use crate::LoadError;

/// More experts, and wider networks, than any model has.
const MAX: u32 = 1 << 16;
const MAX_WIDTH: u32 = 1 << 24;

/// Mixtures of experts of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// Per layer, resolved; `None`: a dense MLP.
    pub layers: Vec<Option<LayerExperts>>,
    /// Whether the weights of a token's experts are normalised.
    pub norm_topk_prob: bool,
    /// Groups of experts, and how many of them a token keeps.
    pub groups: [u32; 2],
    /// Factor of the weights.
    pub scale: f32,
    /// How logits become scores, in classes that leave it to the file.
    pub score: Option<Score>,
    /// Least sum that weights are divided by.
    pub norm_min: f32,
    /// How far logits may be from the largest to count beside it.
    pub jitter: f32,
    /// Bound of gate and up, and factor within the gate's sigmoid.
    pub swiglu: Option<[f32; 2]>,
}

/// The mixture of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerExperts {
    /// Experts E.
    pub count: u32,
    /// Experts of a token K.
    pub per_token: u32,
    /// Channels between the projections of an expert.
    pub intermediate_size: u32,
    /// The same of the network that all tokens go through.
    pub shared_intermediate_size: Option<u32>,
}

impl Experts {
    /// How the weights of a token's experts are normalised: not at all, or to a sum of 1.
    pub fn normalise(&self, eps: f32) -> Normalise {
        if self.norm_topk_prob { Normalise::Sum { eps } } else { Normalise::None }
    }

    /// Which experts may be chosen together. As in DeepSeek-V3, a group counts as much as its two best experts.
    pub fn limited(&self) -> Groups {
        match self.groups {
            [1, _] => Groups::Any,
            [groups, keep] => Groups::Limited { groups, keep, two_best: true, fill_zero: false },
        }
    }
}

/// Mixtures as the class has them, if it does.
pub(super) fn read(
    f: &Fields<'_>,
    class: &Class,
    layers: u32,
    intermediate_size: u32,
) -> Result<Option<Experts>, LoadError> {
    let Some(class) = class.experts else { return Ok(None) };
    let [(count_field, counts), (k_field, per_token)] =
        [class.count, class.per_token].map(|(names, default)| per_layer(f, names, layers, default));
    let (counts, per_token) = (counts?, per_token?);
    let width = match class.width {
        None => intermediate_size,
        Some(default) => f.size("moe_intermediate_size", MAX_WIDTH, default)?,
    };
    let shared = match class.shared {
        Shared::None => None,
        Shared::One => Some(width),
        Shared::Width(field, default) => Some(f.integer(field, 0..=MAX_WIDTH.into(), default.into())? as u32),
        Shared::Times(field, default) => {
            let times = f.integer(field, 0..=MAX.into(), default.into())? as u32;
            let all = width.checked_mul(times).filter(|&all| all <= MAX_WIDTH);
            let want = || format!("at most {MAX_WIDTH} divided by the width of an expert ({width})");
            Some(all.ok_or_else(|| f.bad(field, want()))?)
        }
    };
    let (groups, scale) = match class.groups {
        None => ([1, 1], 1.0),
        Some(([groups, keep], scale)) => (
            [f.size("n_group", MAX, groups)?, f.size("topk_group", MAX, keep)?],
            f.positive("routed_scaling_factor")?.unwrap_or(scale),
        ),
    };
    let mut resolved = Vec::new();
    let is_sparse = sparse(f, class.layers, layers)?;
    for ((is_sparse, &count), &per_token) in is_sparse.into_iter().zip(&counts).zip(&per_token) {
        if per_token > count {
            let want = format!("at most {count}, the experts ({count_field})");
            return Err(bad(k_field, Some(&per_token.into()), want));
        }
        check_groups(groups, count, per_token)?;
        if class.even_groups && !count.is_multiple_of(per_token) {
            let want =
                format!("a divisor of {count}, the experts ({count_field}): one is taken of each group");
            return Err(bad(k_field, Some(&per_token.into()), want));
        }
        resolved.push(is_sparse.then_some(LayerExperts {
            count,
            per_token,
            intermediate_size: width,
            shared_intermediate_size: shared.filter(|&width| width > 0),
        }));
    }
    let score = match (class.score, f.get("scoring_func").map(Value::as_str)) {
        (None, _) => None,
        (default, None) => default,
        (_, Some(Some("softmax"))) => Some(Score::Softmax),
        (_, Some(Some("sigmoid"))) => Some(Score::Sigmoid),
        _ => return Err(f.bad("scoring_func", "softmax or sigmoid")),
    };
    let number = |field: &str, default: Option<f32>| match default {
        None => Ok(0.0),
        Some(default) => Ok::<_, LoadError>(f.positive(field)?.unwrap_or(default)),
    };
    Ok(Some(Experts {
        layers: resolved,
        norm_topk_prob: f.flag("norm_topk_prob")?.unwrap_or(class.norm_topk_prob),
        groups,
        scale,
        score,
        norm_min: number("moe_norm_min", class.norm_min)?,
        jitter: number("router_jitter_noise", class.jitter)?,
        swiglu: match class.swiglu {
            None => None,
            Some([limit, alpha]) => Some([
                f.positive("swiglu_limit")?.unwrap_or(limit),
                f.positive("swiglu_alpha")?.unwrap_or(alpha),
            ]),
        },
    }))
}

/// A number of the first of these fields that is there, one for all layers or a list; and that field.
fn per_layer(
    f: &Fields<'_>,
    names: &'static [&'static str],
    layers: u32,
    default: u32,
) -> (&'static str, Result<Vec<u32>, LoadError>) {
    let field = names.iter().find(|name| f.get(name).is_some()).unwrap_or(&names[0]);
    let Some(Value::Array(list)) = f.get(field) else {
        return (field, f.size(field, MAX, default).map(|n| vec![n; layers as usize]));
    };
    let number = |v: &Value| whole(v).and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=MAX).contains(n));
    let list =
        list.iter().map(number).collect::<Option<Vec<_>>>().filter(|list| list.len() == layers as usize);
    let want = format!("a whole number from 1 to {MAX}, or a list of {layers} of them");
    (field, list.ok_or_else(|| f.bad(field, want)))
}

fn check_groups([groups, keep]: [u32; 2], count: u32, per_token: u32) -> Result<(), LoadError> {
    if groups == 1 && keep == 1 {
        return Ok(());
    }
    // The score of a group is that of its two best experts.
    if !count.is_multiple_of(groups) || (groups > 1 && count / groups < 2) {
        let want = format!("a divisor of the {count} experts that leaves 2 or more in a group");
        return Err(bad("n_group", Some(&groups.into()), want));
    }
    let least = per_token.div_ceil(count / groups);
    if !(least..=groups).contains(&keep) {
        let want = format!("from {least} to {groups}: groups with the {per_token} experts of a token");
        return Err(bad("topk_group", Some(&keep.into()), want));
    }
    Ok(())
}

/// Which layers have experts.
fn sparse(f: &Fields<'_>, class: Sparse, layers: u32) -> Result<Vec<bool>, LoadError> {
    let test = |test: &dyn Fn(u32) -> bool| (0..layers).map(test).collect();
    let most = 0..=i64::from(u32::MAX);
    Ok(match class {
        Sparse::All => test(&|_| true),
        Sparse::Step => {
            const FIELD: &str = "mlp_only_layers";
            let step = f.size("decoder_sparse_step", MAX, 1)?;
            let empty = Vec::new();
            let dense = match f.get(FIELD) {
                None => Some(&empty),
                Some(list) => list.as_array(),
            };
            let dense = dense.and_then(|list| {
                list.iter().map(|v| whole(v).and_then(|n| u32::try_from(n).ok())).collect::<Option<Vec<_>>>()
            });
            let dense = dense.ok_or_else(|| f.bad(FIELD, "a list of numbers of layers"))?;
            test(&|i| (i + 1).is_multiple_of(step) && !dense.contains(&i))
        }
        Sparse::From(default) => {
            let first = f.integer("first_k_dense_replace", most, default.into())?;
            test(&|i| i64::from(i) >= first)
        }
        Sparse::Range(default) => {
            let interval = f.size("moe_layer_interval", MAX, 1)?;
            let first = f.integer("moe_layer_start_index", most.clone(), default.into())?;
            let last = match f.integer("moe_layer_end_index", -1..=*most.end(), -1)? {
                -1 => i64::from(layers) - 1,
                last => last,
            };
            test(&|i| (i + 1).is_multiple_of(interval) && (first..=last).contains(&i64::from(i)))
        }
    })
}

//! Multi-head latent attention: ranks and channels of a head.

use super::class::Class;
use super::fields::Fields;
use crate::LoadError;

/// Larger ranks and heads than any model has.
const MAX: u32 = 1 << 16;

/// Ranks and channels of multi-head latent attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Latent {
    /// Channels of the latent that queries are made of; `None`: they are made of the residual stream.
    pub q_rank: Option<u32>,
    /// Channels L of the latent that keys and values are made of.
    pub rank: u32,
    /// Channels Dn of a query that are not rotated.
    pub nope_dim: u32,
    /// Channels R behind them that are.
    pub rope_dim: u32,
    /// Channels Dv of a value.
    pub value_dim: u32,
    /// Whether rotated pairs are neighbours, or half of R apart.
    pub interleaved: bool,
}

/// What the class has of it, if it does.
pub(super) fn read(f: &Fields<'_>, class: &Class) -> Result<Option<Latent>, LoadError> {
    const Q_RANK: &str = "q_lora_rank";
    let Some(class) = class.latent else { return Ok(None) };
    let q_rank = match f.int(Q_RANK, MAX)? {
        None if f.is_null(Q_RANK) => None,
        rank => rank.or(class.q_rank),
    };
    let rope_dim = f.size("qk_rope_head_dim", MAX, class.rope_dim)?;
    if !rope_dim.is_multiple_of(2) {
        return Err(f.bad("qk_rope_head_dim", "even"));
    }
    Ok(Some(Latent {
        q_rank,
        rank: f.size("kv_lora_rank", MAX, class.rank)?,
        nope_dim: f.size("qk_nope_head_dim", MAX, class.nope_dim)?,
        rope_dim,
        value_dim: f.size("v_head_dim", MAX, class.value_dim)?,
        interleaved: f.flag("rope_interleave")?.unwrap_or(class.interleaved),
    }))
}

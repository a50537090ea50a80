//! Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434), in its absorbed form.
//!
//! Keys and values of a token are products of one latent c of L channels; the cache holds c, normalised, and a rotated key r of R
//! channels that all heads share. The products of the heads move to the other side: of the key's with a query into the query,
//! `q_h · (W_UK,h c) = (W_UK,hᵀ q_h) · c`, of the value's behind the sum, `Σ_j p_j (W_UV,h c_j) = W_UV,h Σ_j p_j c_j`. So all heads
//! attend to one key `[c | r]` whose first L channels are the value.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use girih_ops::{
    Batch, DType, Frame, Gpu, KvView, LatentAppend, LatentSize, Linear as Fusion, Matrix, OpError, RopeStyle,
    RopeTable, Tensor, latent_append, linear_by_expert,
};

use super::{LayerCache, Linear, Modules, Norm, Residual, Scope};
use crate::checkpoint::weights::{ExpertRows, HeadRows};
use crate::error::LoadError;
use crate::network::config::Latent;

/// What distinguishes the latent attention of one model from another's.
#[derive(Clone, Debug)]
pub struct LatentSpec {
    /// C.
    pub hidden_size: u32,
    /// Heads.
    pub num_heads: u32,
    /// Ranks and channels.
    pub dims: Latent,
    /// Factor of the scores.
    pub scale: f32,
    /// Rotary embedding of R channels.
    pub rope: (Arc<RopeTable>, RopeStyle),
    /// The projections to the latents, and of the result, have biases.
    pub bias: bool,
    /// Epsilon of the norms of latents.
    pub eps: f32,
    /// For each token, that every head takes its own matrix.
    pub heads: Arc<HeadRoutes>,
}

/// Projections, norms and positions of one layer.
#[derive(Clone, Debug)]
pub struct LatentAttention {
    spec: LatentSpec,
    /// Projection to the latent of the queries, and its norm; without it queries are made of x.
    q_latent: Option<(Linear, Norm)>,
    /// `[H Dn, ..]`: the parts of the queries that are not rotated.
    q_nope: Linear,
    /// `[H R, ..]`: the rotated parts.
    q_rope: Linear,
    /// `[L + R, C]`
    kv_latent: Linear,
    /// `[L]`
    kv_norm: Tensor,
    /// `W_UKᵀ` of each head `[H, L, Dn]`.
    absorb: Matrix,
    /// `W_UV` of each head `[H, Dv, L]`.
    expand: Matrix,
    /// `[C, H Dv]`
    o: Linear,
}

impl LatentAttention {
    /// `q_a_proj`, `q_a_layernorm`, `q_b_proj` (or `q_proj`), `kv_a_proj_with_mqa`, `kv_a_layernorm`, `kv_b_proj` (or `k_b_proj`,
    /// transposed, and `v_b_proj`, a matrix for each head), `o_proj`.
    pub async fn load(w: &Scope, spec: LatentSpec) -> Result<Self, LoadError> {
        let LatentSpec { hidden_size: c, num_heads: h, dims, bias, eps, .. } = spec;
        let Latent { q_rank, rank, nope_dim, rope_dim, value_dim, .. } = dims;
        let one = |name| Modules::Concat(name);
        let (q_latent, q_name, q_columns) = match q_rank {
            None => (None, "q_proj", c),
            Some(q_rank) => {
                let linear = Linear::load(w, one(&["q_a_proj"]), [q_rank, c], bias).await?;
                let norm = Norm::rms(&w.scope("q_a_layernorm"), q_rank, eps, false).await?;
                (Some((linear, norm)), "q_b_proj", q_rank)
            }
        };
        let queries = async |rows: Range<u32>| {
            let n = h * rows.len() as u32;
            let rows = HeadRows { name: q_name, heads: h, of: nope_dim + rope_dim, rows };
            Linear::load(w, Modules::Heads(&rows), [n, q_columns], false).await
        };
        let [absorb, expand] = Self::load_heads(w, h, dims).await?;
        Ok(Self {
            q_latent,
            q_nope: queries(0..nope_dim).await?,
            q_rope: queries(nope_dim..nope_dim + rope_dim).await?,
            kv_latent: Linear::load(w, one(&["kv_a_proj_with_mqa"]), [rank + rope_dim, c], bias).await?,
            kv_norm: w.scope("kv_a_layernorm").tensor("weight", &[rank]).await?,
            absorb,
            expand,
            o: Linear::load(w, one(&["o_proj"]), [c, h * value_dim], bias).await?,
            spec,
        })
    }

    /// `W_UKᵀ` and `W_UV` of each head.
    async fn load_heads(w: &Scope, h: u32, dims: Latent) -> Result<[Matrix; 2], LoadError> {
        let Latent { rank, nope_dim, value_dim, .. } = dims;
        let (weights, gpu) = (w.weights(), w.gpu());
        let ([keys, values], name) = (["k_b_proj.weight", "v_b_proj.weight"], "kv_b_proj.weight");
        let rows = |rows| HeadRows { name, heads: h, of: nope_dim + value_dim, rows };
        let of_joint = [rows(0..nope_dim), rows(nope_dim..nope_dim + value_dim)];
        let [absorb, expand] = if w.has(keys) && !w.has(name) {
            [ExpertRows::Stacked(keys), ExpertRows::Stacked(values)]
        } else {
            [ExpertRows::HeadsTransposed(&of_joint[0]), ExpertRows::Heads(&of_joint[1])]
        };
        Ok([
            weights.experts(gpu, absorb, [h, rank, nope_dim]).await?,
            weights.experts(gpu, expand, [h, value_dim, rank]).await?,
        ])
    }

    /// Its matrices whose input is that of a module, in the order in which they are used: those of the queries, of which the
    /// rotated part has the input of the other, of the latent, and of the result.
    pub fn linears(&self) -> Vec<&Linear> {
        let first = self.q_latent.as_ref().map(|(linear, _)| linear);
        first.into_iter().chain([&self.q_nope, &self.kv_latent, &self.o]).collect()
    }

    /// Shape of the layer.
    pub fn spec(&self) -> &LatentSpec {
        &self.spec
    }

    /// Memory of the latents of a layer.
    pub fn alloc_cache(&self, gpu: &Gpu, slots: u32, capacity: u32, f16: bool) -> Result<KvView, OpError> {
        let Latent { rank: latent_dim, rope_dim, .. } = self.spec.dims;
        KvView::alloc_latent(gpu, LatentSize { slots, capacity, latent_dim, rope_dim, f16 })
    }

    /// `residual + alpha · attention(norm(x))`: x `[T, C]` → `[T, C]`.
    pub fn forward(
        &self,
        frame: &mut Frame,
        x: &Tensor,
        batch: &Batch,
        cache: &LayerCache,
        fused: Residual<'_>,
    ) -> Result<Tensor, OpError> {
        let Residual { norm, alpha, residual } = fused;
        let LatentSpec { num_heads: h, dims, scale, .. } = self.spec;
        let (tokens, cache) = (batch.num_tokens(), cache.keys()?);
        let rows = tokens.saturating_mul(h);
        let (x, norm) = Norm::once(norm, frame, x)?;
        let (q, q_norm) = match &self.q_latent {
            None => (x.clone(), norm),
            Some((linear, q_norm)) => {
                let q = product(frame, linear, &x, norm)?; // [T, Rq]
                Norm::once(Some(q_norm), frame, &q)?
            }
        };
        let nope = product(frame, &self.q_nope, &q, q_norm)?; // [T, H Dn]
        let q_rope = product(frame, &self.q_rope, &q, q_norm)?; // [T, H R]
        let latents = product(frame, &self.kv_latent, &x, norm)?; // [T, L + R]
        let routes = self.spec.heads.routes(frame.gpu(), tokens)?;
        let nope = nope.reshape(&[rows, dims.nope_dim])?;
        let absorbed = linear_by_expert(frame, &nope, &routes, &self.absorb)?; // [T H, L]
        let (table, style) = &self.spec.rope;
        let opts = LatentAppend {
            num_q_heads: h,
            norm: &self.kv_norm,
            eps: self.spec.eps,
            rope: (&**table, *style),
        };
        let q = latent_append(frame, [&latents, &absorbed, &q_rope], cache, batch, &opts)?; // [T, H (L + R)]
        let opts = girih_ops::Attention {
            num_q_heads: h,
            scale,
            causal: true,
            window: None,
            softcap: None,
            sinks: None,
        };
        let sums = girih_ops::attention(frame, &q, cache, batch, &opts)?; // [T, H L]
        let sums = sums.reshape(&[rows, dims.rank])?;
        let values = linear_by_expert(frame, &sums, &routes, &self.expand)?; // [T H, Dv]
        let values = values.reshape(&[tokens, h * dims.value_dim])?;
        self.o.forward(frame, &values, Fusion { alpha, residual, ..Fusion::default() })
    }
}

fn product(frame: &mut Frame, linear: &Linear, x: &Tensor, norm: Option<&Norm>) -> Result<Tensor, OpError> {
    linear.forward(frame, x, Fusion { norm: norm.map(Norm::prologue), ..Fusion::default() })
}

/// Routes by which head h of every token goes to the h-th matrix of a layer, for all layers.
#[derive(Debug)]
pub struct HeadRoutes {
    heads: u32,
    /// Those of as many tokens as there were so far.
    made: Mutex<Option<Tensor>>,
}

impl HeadRoutes {
    /// Those of so many heads.
    pub fn new(heads: u32) -> Self {
        Self { heads, made: Mutex::default() }
    }

    /// u32 `[T, H, 2]`.
    fn routes(&self, gpu: &Gpu, tokens: u32) -> Result<Tensor, OpError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let enough = made.as_ref().filter(|routes| routes.shape()[0] >= tokens);
        let all = if let Some(routes) = enough {
            routes.clone()
        } else {
            let most = tokens.checked_next_power_of_two().unwrap_or(tokens);
            let of_token = (0..self.heads).flat_map(|head| [head, 1f32.to_bits()]).collect::<Vec<_>>();
            let routes = Tensor::from_u32(gpu, &of_token.repeat(most as usize), &[most, self.heads, 2])?;
            made.insert(routes).clone()
        };
        let bytes = 8 * u64::from(tokens) * u64::from(self.heads);
        let range = all.buffer().slice(0, bytes).unwrap_or_else(|| all.buffer().clone());
        Tensor::from_buffer(range, &[tokens, self.heads, 2], DType::U32)
    }
}

//! Grouped-query attention with its projections, positions and cache.

use std::sync::Arc;

use girih_ops::{
    Batch, Frame, KvView, Linear as Fusion, OpError, QkNorm, RopeAppend, RopeStyle, RopeTable, Tensor,
};

use super::{Linear, Modules, Norm, Scope, Stream};
use crate::error::LoadError;

/// What distinguishes the attention of one layer from another's.
#[derive(Clone, Debug)]
pub struct AttentionSpec {
    /// C.
    pub hidden_size: u32,
    /// Query heads.
    pub num_q_heads: u32,
    /// Key/value heads.
    pub num_kv_heads: u32,
    /// Channels of a head.
    pub head_dim: u32,
    /// Factor of the scores.
    pub scale: f32,
    /// Keys that a query sees, itself included; all if `None`.
    pub window: Option<u32>,
    /// `c · tanh(s / c)` of the scores.
    pub softcap: Option<f32>,
    /// Rotary embedding; none in NoPE layers and encoders.
    pub rope: Option<(Arc<RopeTable>, RopeStyle)>,
    /// Keys after the query are not seen.
    pub causal: bool,
    /// The projections to q, k and v have biases.
    pub qkv_bias: bool,
    /// The projection of the result has a bias.
    pub o_bias: bool,
    /// Norm of q and k before the rotary embedding.
    pub qk_norm: HeadNorm,
    /// The checkpoint's norms store w of a factor 1 + w.
    pub plus_one: bool,
    /// Epsilon of the q and k norms.
    pub eps: f32,
    /// Bound of queries and keys behind their norms, and of values.
    pub clip_qkv: Option<f32>,
    /// Each head has a logit that takes part in the softmax without a value.
    pub sinks: bool,
}

impl AttentionSpec {
    /// The same with a rotary embedding that pairs neighbouring channels.
    #[must_use]
    pub fn interleaved(self) -> Self {
        let rope = self.rope.map(|(table, _)| (table, RopeStyle::Interleaved));
        Self { rope, ..self }
    }
}

/// Extent of the q and k norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNorm {
    /// None.
    None,
    /// Over each head (Qwen 3, Gemma 3).
    PerHead,
    /// Over the whole projection (OLMo 2).
    Full,
    /// Layer norms over each head, with weights of its own (Cohere).
    Layer,
    /// Over each head, behind the rotary embedding (Hunyuan).
    PerHeadRotated,
}

impl HeadNorm {
    /// Names of the norms of q and k.
    fn names(self) -> [&'static str; 2] {
        match self {
            Self::PerHeadRotated => ["query_layernorm", "key_layernorm"],
            _ => ["q_norm", "k_norm"],
        }
    }
}

/// Weights of the q and k norms.
#[derive(Clone, Debug)]
pub struct QkNorms {
    q: Tensor,
    k: Tensor,
}

/// Projections, norms and positions of one layer.
#[derive(Clone, Debug)]
pub struct Attention {
    spec: AttentionSpec,
    qkv: Linear,
    o: Linear,
    norms: Option<QkNorms>,
    /// `[Hq]`
    sinks: Option<Tensor>,
}

impl Attention {
    /// `q_proj`, `k_proj`, `v_proj` (or a fused `qkv_proj`), `o_proj`, `q_norm`, `k_norm`.
    pub async fn load(w: &Scope, spec: AttentionSpec) -> Result<Self, LoadError> {
        let fused = ["qkv_proj"];
        let split = ["q_proj", "k_proj", "v_proj"];
        let modules = Modules::Concat(if w.has("qkv_proj.weight") { &fused } else { &split });
        Self::load_named(w, spec, modules, "o_proj").await
    }

    /// The same under other names.
    pub async fn load_named(
        w: &Scope,
        spec: AttentionSpec,
        qkv: Modules<'_>,
        o: &str,
    ) -> Result<Self, LoadError> {
        let (q_dim, kv_dim) = (spec.num_q_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim);
        let norms = match spec.qk_norm {
            HeadNorm::None => None,
            HeadNorm::PerHead | HeadNorm::PerHeadRotated => {
                Some(QkNorms::load(w, spec.head_dim, spec.head_dim, &spec).await?)
            }
            HeadNorm::Full => Some(QkNorms::load(w, q_dim, kv_dim, &spec).await?),
            HeadNorm::Layer => Some(QkNorms::load_by_head(w, &spec).await?),
        };
        Ok(Self {
            qkv: Linear::load(w, qkv, [q_dim + 2 * kv_dim, spec.hidden_size], spec.qkv_bias).await?,
            o: Linear::load(w, Modules::Concat(&[o]), [spec.hidden_size, q_dim], spec.o_bias).await?,
            norms,
            sinks: if spec.sinks { Some(w.tensor("sinks", &[spec.num_q_heads]).await?) } else { None },
            spec,
        })
    }

    /// Its matrices: q, k and v, then o.
    pub fn linears(&self) -> [&Linear; 2] {
        [&self.qkv, &self.o]
    }

    /// Shape of the layer.
    pub fn spec(&self) -> &AttentionSpec {
        &self.spec
    }

    /// `residual + alpha · attention(norm(x))`: x `[T, C]` → `[T, C]`. Four kernels, five with split keys.
    pub fn forward(
        &self,
        frame: &mut Frame,
        x: &Tensor,
        batch: &Batch,
        cache: &KvView,
        fused: Residual<'_>,
    ) -> Result<Tensor, OpError> {
        let Residual { norm, alpha, residual } = fused;
        let norm = norm.map(Norm::prologue);
        let qkv = self.qkv.forward(frame, x, Fusion { norm, ..Fusion::default() })?; // [T, (Hq + 2 Hkv) D]
        let h = self.attend(frame, &qkv, batch, cache)?; // [T, Hq D]
        self.o.forward(frame, &h, Fusion { alpha, residual, ..Fusion::default() }) // [T, C]
    }

    /// `attention(norm(x))` of the residual stream x, and the value of that: `[T, C]`, `[T, C]`.
    pub fn forward_stream(
        &self,
        frame: &mut Frame,
        stream: Stream<'_>,
        norm: Option<&Norm>,
        batch: &Batch,
        cache: &KvView,
    ) -> Result<(Tensor, Tensor), OpError> {
        let fused = Fusion { norm: norm.map(Norm::prologue), ..Fusion::default() };
        let (x, qkv) = self.qkv.forward_stream(frame, stream, fused)?; // [T, C], [T, (Hq + 2 Hkv) D]
        let h = self.attend(frame, &qkv, batch, cache)?; // [T, Hq D]
        Ok((x, self.o.forward(frame, &h, Fusion::default())?))
    }

    /// Positions, cache, scores: qkv `[T, (Hq + 2 Hkv) D]` → `[T, Hq D]`.
    fn attend(
        &self,
        frame: &mut Frame,
        qkv: &Tensor,
        batch: &Batch,
        cache: &KvView,
    ) -> Result<Tensor, OpError> {
        let spec = &self.spec;
        let norm = match (&self.norms, spec.qk_norm) {
            (Some(n), HeadNorm::PerHead) => QkNorm::PerHead { q: &n.q, k: &n.k, eps: spec.eps },
            (Some(n), HeadNorm::Full) => QkNorm::Full { q: &n.q, k: &n.k, eps: spec.eps },
            (Some(n), HeadNorm::PerHeadRotated) => QkNorm::Rotated { q: &n.q, k: &n.k, eps: spec.eps },
            (Some(n), HeadNorm::Layer) => QkNorm::Layer { q: &n.q, k: &n.k, eps: spec.eps },
            _ => QkNorm::None,
        };
        let rope = spec.rope.as_ref().map(|(table, style)| (&**table, *style));
        let opts = RopeAppend { num_q_heads: spec.num_q_heads, norm, clip: spec.clip_qkv, rope };
        let q = girih_ops::rope_append(frame, qkv, cache, batch, &opts)?; // [T, Hq D]
        let opts = girih_ops::Attention {
            num_q_heads: spec.num_q_heads,
            scale: spec.scale,
            causal: spec.causal,
            window: spec.window,
            softcap: spec.softcap,
            sinks: self.sinks.as_ref(),
        };
        girih_ops::attention(frame, &q, cache, batch, &opts)
    }
}

/// What a block fuses around a sub-layer: `residual + alpha · layer(norm(x))`.
#[derive(Clone, Copy, Debug)]
pub struct Residual<'a> {
    /// Norm before the layer.
    pub norm: Option<&'a Norm>,
    /// Factor of the result.
    pub alpha: f32,
    /// Added to the result.
    pub residual: Option<&'a Tensor>,
}

impl QkNorms {
    async fn load(w: &Scope, q_dim: u32, k_dim: u32, spec: &AttentionSpec) -> Result<Self, LoadError> {
        let load =
            async |name: &str, size| match Norm::rms(&w.scope(name), size, spec.eps, spec.plus_one).await? {
                Norm::Rms { weight, .. } | Norm::Layer { weight, .. } => Ok::<_, LoadError>(weight),
            };
        let [q, k] = spec.qk_norm.names();
        Ok(Self { q: load(q, q_dim).await?, k: load(k, k_dim).await? })
    }

    /// Weights `[H, D]`.
    async fn load_by_head(w: &Scope, spec: &AttentionSpec) -> Result<Self, LoadError> {
        let load = async |name: &str, heads: u32| {
            let weight = w.scope(name).weights().f32("weight", &[heads, spec.head_dim]).await?;
            Ok::<_, LoadError>(Tensor::from_f32(w.gpu(), &weight, &[heads * spec.head_dim])?)
        };
        Ok(Self { q: load("q_norm", spec.num_q_heads).await?, k: load("k_norm", spec.num_kv_heads).await? })
    }
}

//! What architectures share when they are put together from a checkpoint.

use std::sync::Arc;

use girih_ops::{GluAct, RopeFreqs, RopeStyle, RopeTable};

use super::{
    Attention, AttentionSpec, Block, Decoder, FeedForward, Head, HeadNorm, HeadRoutes, LatentAttention,
    LatentSpec, Linear, Mixture, MixtureSpec, Mlp, Modules, Norm, PostNorm, PreNorm, Sandwich, Scope,
    SelfAttention,
};
use crate::error::LoadError;
use crate::network::config::{Config, Experts, HiddenAct, LayerExperts};
use crate::network::rope::{Frequencies, RopeParameters, RopeScaling};

/// Names of the norms of a Gemma layer: before and after attention, before and after the MLP.
pub const GEMMA_NORMS: [&str; 4] = [
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
];

/// What an architecture makes of the mixture of experts of a layer, from what the configuration says of all and of it.
pub type MixtureOf<'a> = &'a (dyn Fn(&Experts, &LayerExperts) -> MixtureSpec + Sync);

/// A checkpoint that is being loaded.
pub struct Build<'a> {
    /// Configuration.
    pub cfg: &'a Config,
    /// Weights below the model's prefix (`model.` for language models).
    pub weights: Scope,
    /// Above the prefix: where the head is.
    root: Scope,
    context: u32,
    ropes: Vec<(RopeParameters, Arc<RopeTable>)>,
    heads: Arc<HeadRoutes>,
}

/// Where checkpoints keep the layers, and where the head: language models, the text part of multimodal ones (in
/// older and newer style), embedding models.
const PREFIXES: [[&str; 2]; 6] = [
    ["model", ""],
    ["language_model.model", "language_model"],
    ["model.language_model", ""],
    ["model.text_model", ""],
    ["language_model", ""],
    ["", ""],
];

impl<'a> Build<'a> {
    /// Tables for every rotary embedding of the configuration, for `context` positions.
    pub fn new(checkpoint: &Scope, cfg: &'a Config, context: u32) -> Result<Self, LoadError> {
        let found = PREFIXES.iter().find(|[prefix, _]| checkpoint.scope(prefix).has("embed_tokens.weight"));
        let [weights, root] = found.unwrap_or(&PREFIXES[0]).map(|prefix| checkpoint.scope(prefix));
        let heads = Arc::new(HeadRoutes::new(cfg.num_attention_heads));
        let mut build = Self { cfg, weights, root, context, ropes: Vec::new(), heads };
        for layer in 0..cfg.num_hidden_layers {
            if let Some(params) = cfg.layer_rope(layer as usize)
                && !build.ropes.iter().any(|(known, _)| known == params)
            {
                let table = Arc::new(build.table(params)?);
                build.ropes.push((params.clone(), table));
            }
        }
        Ok(build)
    }

    fn table(&self, params: &RopeParameters) -> Result<RopeTable, LoadError> {
        let rotary_dim = params.rotary_dim(self.cfg.head_dim);
        let short = params.frequencies(rotary_dim, None)?;
        let long = match switch_length(params) {
            Some(length) => Some((params.frequencies(rotary_dim, Some(length + 1))?, length)),
            None => None,
        };
        let long = long.as_ref().map(|(f, length)| (freqs(f), *length));
        let long = long.as_ref().map(|(f, length)| (f, *length));
        Ok(RopeTable::new(self.root.gpu(), rotary_dim, &freqs(&short), long, self.context)?)
    }

    /// Weights of layer `i`.
    pub fn layer(&self, i: u32) -> Scope {
        self.weights.scope(&format!("layers.{i}"))
    }

    /// The attention that the configuration describes: half-split rotary embedding, `1 / sqrt(D)`.
    pub fn attention(&self, layer: u32) -> AttentionSpec {
        let cfg = self.cfg;
        let rope = cfg
            .layer_rope(layer as usize)
            .and_then(|params| self.ropes.iter().find(|(known, _)| known == params));
        AttentionSpec {
            hidden_size: cfg.hidden_size,
            num_q_heads: cfg.num_attention_heads,
            num_kv_heads: cfg.num_key_value_heads,
            head_dim: cfg.head_dim,
            scale: cfg.attention_scale(),
            window: cfg.layer_window(layer as usize),
            softcap: cfg.attn_logit_softcapping,
            rope: rope.map(|(_, table)| (table.clone(), RopeStyle::Half)),
            causal: true,
            qkv_bias: cfg.attention_bias,
            o_bias: cfg.attention_output_bias,
            qk_norm: HeadNorm::None,
            plus_one: false,
            eps: cfg.rms_norm_eps,
            clip_qkv: cfg.clip_qkv,
            sinks: false,
        }
    }

    /// The attention of a layer, from projections to each head or to latents.
    pub async fn self_attention(&self, w: &Scope, spec: AttentionSpec) -> Result<SelfAttention, LoadError> {
        let w = w.scope("self_attn");
        let (Some(dims), Some((table, _))) = (self.cfg.latent, &spec.rope) else {
            return Ok(Attention::load(&w, spec).await?.into());
        };
        let style = if dims.interleaved { RopeStyle::Interleaved } else { RopeStyle::Half };
        let spec = LatentSpec {
            hidden_size: spec.hidden_size,
            num_heads: spec.num_q_heads,
            dims,
            scale: spec.scale,
            rope: (table.clone(), style),
            bias: spec.qkv_bias,
            // As the models' own code has it, whatever `rms_norm_eps` says.
            eps: 1e-6,
            heads: self.heads.clone(),
        };
        Ok(LatentAttention::load(&w, spec).await?.into())
    }

    /// An RMS norm over the hidden size.
    pub async fn rms(&self, w: &Scope, name: &str) -> Result<Norm, LoadError> {
        self.rms_norm(w, name, false).await
    }

    /// An RMS norm whose factor is 1 + w.
    pub async fn rms_plus_one(&self, w: &Scope, name: &str) -> Result<Norm, LoadError> {
        self.rms_norm(w, name, true).await
    }

    async fn rms_norm(&self, w: &Scope, name: &str, plus_one: bool) -> Result<Norm, LoadError> {
        Norm::rms(&w.scope(name), self.cfg.hidden_size, self.cfg.rms_norm_eps, plus_one).await
    }

    /// The gated MLP that the configuration describes.
    pub async fn mlp(&self, w: &Scope) -> Result<Mlp, LoadError> {
        let act = glu(self.cfg.hidden_act);
        let size = [self.cfg.hidden_size, self.cfg.intermediate_size];
        Mlp::load(&w.scope("mlp"), size, act, self.cfg.mlp_bias).await
    }

    /// The feed-forward network of a layer: a mixture of experts, or the MLP, as the configuration says.
    pub async fn feed_forward(
        &self,
        layer: u32,
        w: &Scope,
        mixture: MixtureOf<'_>,
    ) -> Result<FeedForward, LoadError> {
        match (&self.cfg.experts, self.cfg.layer_experts(layer as usize)) {
            (Some(all), Some(experts)) => Ok(Mixture::load(w, mixture(all, experts)).await?.into()),
            _ => Ok(self.mlp(w).await?.into()),
        }
    }

    /// Llama's blocks, with attention as `spec` makes it.
    pub async fn pre_norm_blocks(
        &self,
        residual_multiplier: f32,
        spec: fn(AttentionSpec) -> AttentionSpec,
    ) -> Result<Vec<Block>, LoadError> {
        self.blocks_of(residual_multiplier, spec, None).await
    }

    /// The same with mixtures of experts as `mixture` makes them.
    pub async fn mixture_blocks(
        &self,
        residual_multiplier: f32,
        spec: fn(AttentionSpec) -> AttentionSpec,
        mixture: MixtureOf<'_>,
    ) -> Result<Vec<Block>, LoadError> {
        self.blocks_of(residual_multiplier, spec, Some(mixture)).await
    }

    async fn blocks_of(
        &self,
        residual_multiplier: f32,
        spec: fn(AttentionSpec) -> AttentionSpec,
        mixture: Option<MixtureOf<'_>>,
    ) -> Result<Vec<Block>, LoadError> {
        let mut blocks = Vec::new();
        for i in 0..self.cfg.num_hidden_layers {
            let (w, spec) = (self.layer(i), spec(self.attention(i)));
            let plus_one = spec.plus_one;
            blocks.push(Block::PreNorm(PreNorm {
                attn_norm: self.rms_norm(&w, "input_layernorm", plus_one).await?,
                attn: self.self_attention(&w, spec).await?,
                mlp_norm: self.rms_norm(&w, "post_attention_layernorm", plus_one).await?,
                mlp: match mixture {
                    Some(mixture) => self.feed_forward(i, &w, mixture).await?,
                    None => self.mlp(&w).await?.into(),
                },
                residual_multiplier,
            }));
        }
        Ok(blocks)
    }

    /// OLMo's blocks: norms after attention and MLP only; RMS norms over the whole query and key projections.
    pub async fn post_norm_blocks(&self) -> Result<Vec<Block>, LoadError> {
        let mut blocks = Vec::new();
        for i in 0..self.cfg.num_hidden_layers {
            let w = self.layer(i);
            let spec = AttentionSpec { qk_norm: HeadNorm::Full, ..self.attention(i) };
            blocks.push(Block::PostNorm(PostNorm {
                attn: self.self_attention(&w, spec).await?,
                attn_post_norm: self.rms(&w, "post_attention_layernorm").await?,
                mlp: self.mlp(&w).await?.into(),
                mlp_post_norm: self.rms(&w, "post_feedforward_layernorm").await?,
            }));
        }
        Ok(blocks)
    }

    /// Blocks with four norms, with attention as `spec` makes it. `norms`: names of those before and after attention
    /// and before and after the MLP.
    pub async fn sandwich_blocks(
        &self,
        norms: [&str; 4],
        spec: fn(AttentionSpec) -> AttentionSpec,
    ) -> Result<Vec<Block>, LoadError> {
        let [attn_norm, attn_post_norm, mlp_norm, mlp_post_norm] = norms;
        let mut blocks = Vec::new();
        for i in 0..self.cfg.num_hidden_layers {
            let (w, spec) = (self.layer(i), spec(self.attention(i)));
            let norm = async |name: &str| self.rms_norm(&w, name, spec.plus_one).await;
            blocks.push(Block::Sandwich(Sandwich {
                attn_norm: norm(attn_norm).await?,
                attn_post_norm: norm(attn_post_norm).await?,
                mlp_norm: norm(mlp_norm).await?,
                mlp: self.mlp(&w).await?.into(),
                mlp_post_norm: norm(mlp_post_norm).await?,
                attn: self.self_attention(&w, spec).await?,
            }));
        }
        Ok(blocks)
    }

    /// Whether the checkpoint is a language model: `LlamaForCausalLM`, not `LlamaModel`. Without that information,
    /// embedding models are those whose tensors have no prefix.
    fn has_head(&self) -> bool {
        match self.cfg.architectures.as_slice() {
            [] => self.root.has("lm_head.weight") || !self.root.has("embed_tokens.weight"),
            names => !names.iter().all(|name| name.ends_with("Model")),
        }
    }

    /// Whether the head is the embedding. As in transformers, a checkpoint with a head that differs is right about
    /// it, whatever its configuration says.
    async fn is_tied(&self) -> Result<bool, LoadError> {
        const HEAD: &str = "lm_head.weight";
        if !self.cfg.tie_word_embeddings || !self.root.has(HEAD) {
            return Ok(self.cfg.tie_word_embeddings);
        }
        let tied = self.weights.tensors().same("embed_tokens.weight", self.root.tensors(), HEAD).await?;
        if tied {
            self.root.tensors().ignore(HEAD);
        } else {
            tracing::warn!("tie_word_embeddings is true, but {HEAD} differs from the embedding: it is used");
        }
        Ok(tied)
    }

    /// Embedding, blocks, final norm and head.
    pub async fn decoder(&self, blocks: Vec<Block>, norm: Norm) -> Result<Decoder, LoadError> {
        self.decoder_with(blocks, norm, false).await
    }

    /// The same with a head that may have a bias, unless it is the embedding.
    pub async fn decoder_with(
        &self,
        blocks: Vec<Block>,
        norm: Norm,
        head_bias: bool,
    ) -> Result<Decoder, LoadError> {
        let (v, c) = (self.cfg.vocab_size, self.cfg.hidden_size);
        let embedding = self.weights.matrix("embed_tokens.weight", v, c).await?;
        let head = if !self.has_head() {
            None
        } else if self.is_tied().await? {
            Some(Linear::from_matrix(embedding.clone()))
        } else {
            Some(Linear::load(&self.root, Modules::Concat(&["lm_head"]), [v, c], head_bias).await?)
        };
        Ok(Decoder {
            embedding,
            embedding_scale: self.cfg.embedding_multiplier,
            blocks,
            norm,
            head: head.map(|linear| Head {
                linear,
                alpha: self.cfg.output_scale(),
                softcap: self.cfg.final_logit_softcapping,
            }),
        })
    }
}

/// Llama's network: blocks with norms before attention and MLP, all as the configuration has it.
pub async fn pre_norm_decoder(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let blocks = b.pre_norm_blocks(1.0, |spec| spec).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

/// OLMo's network: blocks with norms after attention and MLP.
pub async fn post_norm_decoder(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let blocks = b.post_norm_blocks().await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}

fn freqs(f: &Frequencies) -> RopeFreqs<'_> {
    RopeFreqs { inv_freq: &f.inv_freq, attention_factor: f.attention_factor as f32 }
}

/// Sequences longer than this have other frequencies. Dynamic scaling sets in beyond the model's own context, which
/// girih never exceeds.
fn switch_length(params: &RopeParameters) -> Option<u32> {
    match params.scaling {
        RopeScaling::LongRope { original_max_position_embeddings, .. } => {
            Some(original_max_position_embeddings as u32)
        }
        _ => None,
    }
}

/// The gate's activation.
pub fn glu(act: HiddenAct) -> GluAct {
    match act {
        HiddenAct::Silu => GluAct::Silu,
        HiddenAct::Gelu => GluAct::GeluErf,
        HiddenAct::GeluTanh => GluAct::GeluTanh,
        HiddenAct::Relu => GluAct::Relu,
    }
}

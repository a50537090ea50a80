//! `config.json`: what an architecture needs, in one form for all checkpoints.
//!
//! Both styles are read: that of most published checkpoints (`rope_theta`, `rope_scaling`, `torch_dtype`) and that
//! of transformers 5 (`rope_parameters`, `dtype`). What is assumed where a file is silent stands with the architecture
//! (`class::Class`); here it is only read.

pub(crate) mod class;
mod experts;
mod fields;
mod latent;
mod layers;
mod nested;

use serde_json::{Map, Value};

use self::class::{Bias, Class, Named};
use self::fields::{Fields, bad};
use crate::LoadError;
use crate::checkpoint::format::json;
use crate::network::rope::{RopeParameters, RopeScaling};

pub use experts::{Experts, LayerExperts};
pub use latent::Latent;

/// Activation of the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HiddenAct {
    /// `x · sigmoid(x)`.
    Silu,
    /// `x · Φ(x)`.
    Gelu,
    /// The same, by the formula with tanh.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

/// What a layer's attention sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerType {
    /// All earlier tokens.
    Full,
    /// The last `sliding_window` tokens, its own included.
    Sliding,
    /// All earlier tokens, by a state that forgets them (lightning attention).
    Linear,
}

/// Configuration of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Family, one of [`MODEL_TYPES`](crate::network::arch::MODEL_TYPES).
    pub model_type: String,
    /// Classes that the checkpoint was made with: `LlamaForCausalLM`.
    pub architectures: Vec<String>,
    /// Element type that the checkpoint says it has.
    pub dtype: Option<String>,
    /// Tokens V.
    pub vocab_size: u32,
    /// Channels C of the residual stream.
    pub hidden_size: u32,
    /// Channels between the MLP's projections.
    pub intermediate_size: u32,
    /// Layers.
    pub num_hidden_layers: u32,
    /// Query heads.
    pub num_attention_heads: u32,
    /// Key and value heads.
    pub num_key_value_heads: u32,
    /// Channels of a head; with latents, those that are rotated.
    pub head_dim: u32,
    /// Activation of the MLP.
    pub hidden_act: HiddenAct,
    /// Longest sequence the model is made for.
    pub max_position_embeddings: u32,
    /// Longest sequence that can be computed: `max_position_embeddings`, or more where the configuration asks for it by
    /// a scaling of the positions ([`RopeParameters::scaled_length`]).
    pub max_context: u32,
    /// Trained length, where it is stated apart from a scaling of the positions.
    pub original_max_position_embeddings: Option<u32>,
    /// Added to the mean square in RMS norms.
    pub rms_norm_eps: f32,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f32,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether the projections to Q, K and V have biases.
    pub attention_bias: bool,
    /// Whether the projection of the attention's output has a bias.
    pub attention_output_bias: bool,
    /// Whether the MLP's projections have biases.
    pub mlp_bias: bool,
    /// Keys that a sliding layer sees; `None` if no layer slides.
    pub sliding_window: Option<u32>,
    /// Per layer, resolved.
    pub layer_types: Vec<LayerType>,
    /// Rotary embedding of full layers.
    pub rope: RopeParameters,
    /// Rotary embedding of sliding layers where it differs.
    pub rope_sliding: Option<RopeParameters>,
    /// Layers without rotary embedding, resolved: true at layers that rotate.
    pub uses_rope: Vec<bool>,
    /// Bound of attention scores: `c · tanh(s / c)`.
    pub attn_logit_softcapping: Option<f32>,
    /// Bound of logits.
    pub final_logit_softcapping: Option<f32>,
    /// Scores are divided by its square root.
    pub query_pre_attn_scalar: Option<f32>,
    /// Embeddings are multiplied by it: a factor of its own (granite), or the square root of the hidden size (gemma).
    pub embedding_multiplier: f32,
    /// Outputs of attention and MLP are multiplied by it before they are added.
    pub residual_multiplier: f32,
    /// Scores are multiplied by it (granite). See [`Config::attention_scale`].
    pub attention_multiplier: Option<f32>,
    /// Logits are divided by it (granite). See [`Config::output_scale`].
    pub logits_scaling: f32,
    /// Logits are multiplied by it (cohere). See [`Config::output_scale`].
    pub logit_scale: f32,
    /// Rotated share of a head.
    pub partial_rotary_factor: f64,
    /// Whether queries and keys are normalised (cohere).
    pub use_qk_norm: bool,
    /// Bound of queries, keys and values (olmoe).
    pub clip_qkv: Option<f32>,
    /// Factors of the residual stream and of what is added, of full attention, linear attention and MLP; `None` if the
    /// architecture has none.
    pub normed_residual: Option<[[f32; 2]; 3]>,
    /// Multi-head latent attention; `None` if the architecture has another.
    pub latent: Option<Latent>,
    /// Mixtures of experts; `None` if the architecture has none.
    pub experts: Option<Experts>,
    /// Segments (bert); 0 elsewhere.
    pub type_vocab_size: u32,
    /// Beginning of a text.
    pub bos_token_id: Option<u32>,
    /// Ends of a text.
    pub eos_token_ids: Vec<u32>,
    /// Filling.
    pub pad_token_id: Option<u32>,
    /// Everything else, as it stands in the file (of `text_config` where there is one).
    pub raw: Map<String, Value>,
}

impl Config {
    /// Reads `config.json` of a model of one of these classes. [`Config::parse`] does, with all that are known.
    pub(super) fn read(bytes: &[u8], known: &[Named]) -> Result<Self, LoadError> {
        let value = json::parse("config.json", bytes)?;
        let Value::Object(top) = value else { return Err(bad("top level", Some(&value), "an object")) };
        Self::from_map(nested::text_part(top, known)?, known)
    }

    fn from_map(raw: Map<String, Value>, known: &[Named]) -> Result<Self, LoadError> {
        let f = Fields(&raw);
        let architectures = names(&f);
        let model_type = model_type(&f, &architectures, known);
        let Some(&Named { class, .. }) = known.iter().find(|named| named.model_type == model_type) else {
            let known = known.iter().map(|named| named.model_type).collect();
            return Err(LoadError::UnknownModel { got: model_type, known });
        };
        for field in class.refused_flags {
            if f.flag(field)?.unwrap_or(false) {
                return Err(f.bad(field, "false (other kinds of attention are not supported yet)"));
            }
        }
        if f.get("position_embedding_type").is_some_and(|v| v != "absolute") {
            return Err(f.bad("position_embedding_type", "absolute"));
        }
        let hidden_size = f.size("hidden_size", 1 << 20, class.hidden_size)?;
        let intermediate_size = f.size("intermediate_size", 1 << 24, class.intermediate_size)?;
        let num_hidden_layers = f.size("num_hidden_layers", 4096, class.layers)?;
        let heads = f.size("num_attention_heads", 4096, class.heads)?;
        let latent = latent::read(&f, class)?;
        // Heads share a latent; what rotates of a head is apart.
        let (kv_heads, head_dim) = match latent {
            Some(latent) => (heads, latent.rope_dim),
            None => (kv_heads(&f, class, heads)?, head_dim(&f, class, hidden_size, heads)?),
        };
        let max_position_embeddings =
            f.size("max_position_embeddings", 1 << 30, class.max_position_embeddings)?;
        let original =
            f.int("original_max_position_embeddings", 1 << 30)?.or(class.original_max_position_embeddings);
        let bias = |of: Bias, field: &str| match of {
            Bias::Fixed(bias) => Ok(bias),
            Bias::Configured(default) => Ok::<_, LoadError>(f.flag(field)?.unwrap_or(default)),
            Bias::Named(field, default) => Ok(f.flag(field)?.unwrap_or(default)),
        };
        let [qkv_bias, o_bias, mlp_bias] = class.biases;

        let uses_rope = layers::rotating(&f, class, num_hidden_layers)?;
        let (layer_types, sliding_window) = layers::types(&f, class, &uses_rope)?;
        let (rope, rope_sliding) = layers::ropes(&f, class, max_position_embeddings, original)?;
        let mut max_context = max_position_embeddings;
        if uses_rope.contains(&true) {
            for rope in [Some(&rope), rope_sliding.as_ref()].into_iter().flatten() {
                let rotary_dim = rope.rotary_dim(head_dim);
                rope.frequencies(rotary_dim, None)?;
                rope.frequencies(rotary_dim, Some(max_position_embeddings))?;
            }
            let linear = matches!(rope.scaling, RopeScaling::Linear { .. });
            if !(linear && class.scaling_included) {
                max_context = max_context.max(rope.scaled_length());
            }
        }
        let [rms_norm_eps, layer_norm_eps] =
            [epsilon(&f, "rms_norm_eps", class)?, epsilon(&f, "layer_norm_eps", class)?];
        let factor = |field: &str| {
            // Other classes do not know these fields; transformers leaves them out of account.
            let stated = if class.multipliers { f.positive(field)? } else { None };
            Ok::<f32, LoadError>(stated.unwrap_or(1.0))
        };
        let softcap = |i: usize, field: &str| match class.softcaps {
            None => Ok(None),
            Some(defaults) if f.0.get(field).is_none() => Ok(defaults[i]),
            Some(_) => f.positive(field),
        };
        let token = |field: &str, default: Option<u32>| {
            Ok::<_, LoadError>(f.tokens(field, default.as_slice())?.first().copied())
        };
        Ok(Self {
            dtype: f.get("dtype").or_else(|| f.get("torch_dtype")).and_then(Value::as_str).map(dtype_name),
            vocab_size: f.size("vocab_size", 1 << 24, class.vocab_size)?,
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            hidden_act: activation(&f, class)?,
            max_position_embeddings,
            max_context,
            original_max_position_embeddings: original,
            rms_norm_eps,
            layer_norm_eps,
            tie_word_embeddings: f.flag("tie_word_embeddings")?.unwrap_or(class.tie),
            attention_bias: bias(qkv_bias, "attention_bias")?,
            attention_output_bias: bias(o_bias, "attention_bias")?,
            mlp_bias: bias(mlp_bias, "mlp_bias")?,
            sliding_window,
            layer_types,
            partial_rotary_factor: rope.partial_rotary_factor,
            rope,
            rope_sliding,
            uses_rope,
            attn_logit_softcapping: softcap(0, "attn_logit_softcapping")?,
            final_logit_softcapping: softcap(1, "final_logit_softcapping")?,
            query_pre_attn_scalar: match class.query_pre_attn_scalar {
                None => None,
                default => f.positive("query_pre_attn_scalar")?.or(default),
            },
            embedding_multiplier: if class.root_of_hidden {
                f64::from(hidden_size).sqrt() as f32
            } else {
                factor("embedding_multiplier")?
            },
            residual_multiplier: factor("residual_multiplier")?,
            attention_multiplier: if class.multipliers {
                Some(factor("attention_multiplier")?)
            } else {
                None
            },
            logits_scaling: factor("logits_scaling")?,
            logit_scale: match class.logit_scale {
                None => 1.0,
                Some(default) => f.positive("logit_scale")?.unwrap_or(default),
            },
            clip_qkv: if class.clips_qkv { f.positive("clip_qkv")? } else { None },
            normed_residual: if class.lightning {
                let factors = |of: &str| {
                    let one = |name: &str| {
                        Ok::<_, LoadError>(f.positive(&format!("{of}_{name}_factor"))?.unwrap_or(1.0))
                    };
                    Ok::<_, LoadError>([one("alpha")?, one("beta")?])
                };
                Some([factors("full_attn")?, factors("linear_attn")?, factors("mlp")?])
            } else {
                None
            },
            latent,
            experts: experts::read(&f, class, num_hidden_layers, intermediate_size)?,
            use_qk_norm: class.qk_norm_flag && f.flag("use_qk_norm")?.unwrap_or(false),
            type_vocab_size: match class.type_vocab_size {
                0 => 0,
                default => f.size("type_vocab_size", 1 << 16, default)?,
            },
            bos_token_id: token("bos_token_id", class.bos_token_id)?,
            eos_token_ids: f.tokens("eos_token_id", class.eos_token_ids)?,
            pad_token_id: token("pad_token_id", class.pad_token_id)?,
            architectures,
            model_type,
            raw,
        })
    }

    /// What attention scores are multiplied with.
    pub fn attention_scale(&self) -> f32 {
        if let Some(latent) = self.latent {
            let root = f64::from(latent.nope_dim + latent.rope_dim).sqrt();
            // Twice the magnitude that yarn gives all dimensions: that of queries and that of keys.
            let magnitude = self.rope.magnitude_of_all();
            return (magnitude * magnitude / root) as f32;
        }
        match (self.attention_multiplier, self.query_pre_attn_scalar) {
            (Some(m), _) => m,
            (None, Some(s)) => (f64::from(s)).powf(-0.5) as f32,
            (None, None) => f64::from(self.head_dim).powf(-0.5) as f32,
        }
    }

    /// What logits are multiplied with: `logit_scale / logits_scaling`.
    pub fn output_scale(&self) -> f32 {
        self.logit_scale / self.logits_scaling
    }

    /// Channels of the intermediate results of attention: queries, keys, values and sums.
    pub fn attention_channels(&self) -> u64 {
        let heads = u64::from(self.num_attention_heads);
        let per_head = match self.latent {
            // Queries in two parts, with the keys' products in them, put together; sums of latents, values.
            Some(l) => {
                let [rank, nope, rope, value] = [l.rank, l.nope_dim, l.rope_dim, l.value_dim].map(u64::from);
                return heads * (nope + rope + 3 * rank + rope + value)
                    + rank
                    + rope
                    + u64::from(l.q_rank.unwrap_or(0));
            }
            // [q | k | v], sums, their norm, the gate and what it leaves.
            None if self.normed_residual.is_some() => 7 * heads,
            // [q | k | v], q and the sums.
            None => 3 * heads + 2 * u64::from(self.num_key_value_heads),
        };
        per_head.saturating_mul(self.head_dim.into())
    }

    /// Bytes of what all layers keep of one sequence of `tokens` tokens: keys and values, or latents, as f16 or f32, and states,
    /// which are f32; `u64::MAX` if they are more.
    pub fn cache_bytes(&self, tokens: u32, f16: bool) -> u64 {
        let states = self.layer_types.iter().filter(|&&kind| kind == LayerType::Linear).count() as u64;
        let layers = u64::from(self.num_hidden_layers) - states.min(self.num_hidden_layers.into());
        // Values of latents are in the same memory.
        let kept = if self.latent.is_some() { 1 } else { 2 };
        let keys = self.keys_bytes(tokens, f16).saturating_mul(kept).saturating_mul(layers);
        keys.saturating_add(states.saturating_mul(self.states_bytes()))
    }

    /// Bytes of the largest of the buffers that layers keep of one sequence: keys, or states.
    pub fn largest_kept_bytes(&self, tokens: u32, f16: bool) -> u64 {
        let has = |linear| self.layer_types.iter().any(|&kind| (kind == LayerType::Linear) == linear);
        let keys = if has(false) { self.keys_bytes(tokens, f16) } else { 0 };
        if has(true) { keys.max(self.states_bytes()) } else { keys }
    }

    /// Keys, or latents, of a layer.
    fn keys_bytes(&self, tokens: u32, f16: bool) -> u64 {
        let row = match self.latent {
            Some(latent) => u64::from(latent.rank) + u64::from(latent.rope_dim),
            None => u64::from(self.num_key_value_heads) * u64::from(self.head_dim),
        };
        [row, if f16 { 2 } else { 4 }].into_iter().fold(tokens.into(), u64::saturating_mul)
    }

    /// States of a layer.
    fn states_bytes(&self) -> u64 {
        let [heads, dim] = [self.num_attention_heads, self.head_dim].map(u64::from);
        [heads, dim, dim].into_iter().fold(4, u64::saturating_mul)
    }

    /// Rotary embedding of a layer; `None` if it has none.
    pub fn layer_rope(&self, layer: usize) -> Option<&RopeParameters> {
        if !self.uses_rope.get(layer).copied().unwrap_or(false) {
            return None;
        }
        match (self.layer_types.get(layer), &self.rope_sliding) {
            (Some(LayerType::Sliding), Some(rope)) => Some(rope),
            _ => Some(&self.rope),
        }
    }

    /// The mixture of experts of a layer; `None` if its MLP is dense.
    pub fn layer_experts(&self, layer: usize) -> Option<&LayerExperts> {
        self.experts.as_ref()?.layers.get(layer)?.as_ref()
    }

    /// Channels of the intermediate results of a feed-forward network, of the widest: what is between its projections, and
    /// what each of the experts of a token gives.
    pub fn feed_forward_channels(&self) -> u64 {
        let experts = self.experts.iter().flat_map(|all| all.layers.iter().flatten()).map(|layer| {
            let row = u64::from(layer.intermediate_size) + u64::from(self.hidden_size);
            row.saturating_mul(layer.per_token.into()).max(layer.shared_intermediate_size.unwrap_or(0).into())
        });
        experts.fold(self.intermediate_size.into(), u64::max)
    }

    /// Keys that a layer sees; `None` if all.
    pub fn layer_window(&self, layer: usize) -> Option<u32> {
        self.sliding_window.filter(|_| self.layer_types.get(layer) == Some(&LayerType::Sliding))
    }
}

/// `architectures`; what is no text is left out.
fn names(f: &Fields<'_>) -> Vec<String> {
    let list = f.get("architectures").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What `model_type` says; where it is absent, the type whose models have a name like the first of `architectures`.
fn model_type(f: &Fields<'_>, architectures: &[String], known: &[Named]) -> String {
    match f.get("model_type") {
        // Pangu calls its type as its class.
        Some(Value::String(name)) => {
            let of_class = known.iter().find(|named| named.class.name == name);
            of_class.map_or(name.as_str(), |named| named.model_type).to_owned()
        }
        Some(other) => json::excerpt(other),
        None => {
            let is_of = |named: &&Named| architectures.first().is_some_and(|name| named.class.is_of(name));
            known.iter().find(is_of).map(|named| named.model_type.to_owned()).unwrap_or_default()
        }
    }
}

/// `bfloat16` of `torch.bfloat16`.
fn dtype_name(name: &str) -> String {
    name.strip_prefix("torch.").unwrap_or(name).to_owned()
}

fn kv_heads(f: &Fields<'_>, class: &Class, heads: u32) -> Result<u32, LoadError> {
    const FIELD: &str = "num_key_value_heads";
    let kv_heads = match f.int(FIELD, 4096)? {
        Some(kv_heads) => kv_heads,
        None if f.is_null(FIELD) => heads,
        None => class.kv_heads.unwrap_or(heads),
    };
    if heads.is_multiple_of(kv_heads) {
        return Ok(kv_heads);
    }
    let want = format!("a divisor of num_attention_heads ({heads})");
    Err(bad(FIELD, Some(&kv_heads.into()), want))
}

fn head_dim(f: &Fields<'_>, class: &Class, hidden_size: u32, heads: u32) -> Result<u32, LoadError> {
    const FIELD: &str = "head_dim";
    if class.head_dim.is_some() && f.is_null(FIELD) {
        return Err(f.bad(FIELD, "a whole number from 1 to 4096"));
    }
    match f.int(FIELD, 4096)?.or(class.head_dim) {
        Some(head_dim) => Ok(head_dim),
        None if hidden_size.is_multiple_of(heads) => Ok(hidden_size / heads),
        None => {
            let want = format!("a multiple of num_attention_heads ({heads}) where head_dim is absent");
            Err(bad("hidden_size", Some(&hidden_size.into()), want))
        }
    }
}

fn activation(f: &Fields<'_>, class: &Class) -> Result<HiddenAct, LoadError> {
    match f.get(class.act_field).map_or(Some(class.act), Value::as_str) {
        Some("silu" | "swish") => Ok(HiddenAct::Silu),
        Some("gelu") if class.gelu_is_tanh => Ok(HiddenAct::GeluTanh),
        Some("gelu" | "gelu_python") => Ok(HiddenAct::Gelu),
        Some("gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_new" | "gelu_fast" | "gelu_accurate") => {
            Ok(HiddenAct::GeluTanh)
        }
        Some("relu") => Ok(HiddenAct::Relu),
        _ => {
            let want = "silu, gelu, gelu_pytorch_tanh, gelu_new, gelu_fast or relu";
            Err(f.bad(class.act_field, want))
        }
    }
}

fn epsilon(f: &Fields<'_>, field: &str, class: &Class) -> Result<f32, LoadError> {
    let eps = f.float(field)?.unwrap_or(class.eps);
    if (0.0..1.0).contains(&eps) { Ok(eps as f32) } else { Err(f.bad(field, "from 0 to 1")) }
}

#[cfg(test)]
mod tests;

//! `config.json`: what an architecture needs, in one form for all checkpoints.
//!
//! Both styles are read: that of most published checkpoints (`rope_theta`, `rope_scaling`, `torch_dtype`) and that
//! of transformers 5 (`rope_parameters`, `dtype`). What is assumed where a file is silent stands with the architecture
//! (`class::Class`); here it is only read.

pub(crate) mod class;
mod fields;
mod layers;
mod nested;

use serde_json::{Map, Value};

use self::class::{Bias, Class};
use self::fields::{Fields, bad};
use crate::LoadError;
use crate::checkpoint::format::json;
use crate::network::arch::{self, MODEL_TYPES};
use crate::network::rope::{RopeParameters, RopeScaling};

/// Activation of the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
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
}

/// Configuration of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Family, one of [`MODEL_TYPES`].
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
    /// Channels of a head.
    pub head_dim: u32,
    /// Activation of the MLP.
    pub hidden_act: Activation,
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
    /// Embeddings are multiplied by it (granite). See [`Config::embedding_scale`].
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
    /// Reads `config.json`.
    ///
    /// # Errors
    /// Text that is not JSON, an unknown model, a field that is missing or that no model can have.
    pub fn parse(bytes: &[u8]) -> Result<Self, LoadError> {
        let value = json::parse("config.json", bytes)?;
        let Value::Object(top) = value else { return Err(bad("top level", Some(&value), "an object")) };
        Self::from_map(nested::text_part(top)?)
    }

    fn from_map(raw: Map<String, Value>) -> Result<Self, LoadError> {
        let f = Fields(&raw);
        let architectures = names(&f);
        let model_type = model_type(&f, &architectures);
        let Some(class) = arch::class(&model_type) else {
            return Err(LoadError::UnknownModel { got: model_type, known: MODEL_TYPES.to_vec() });
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
        let num_hidden_layers = f.size("num_hidden_layers", 4096, class.layers)?;
        let heads = f.size("num_attention_heads", 4096, class.heads)?;
        let kv_heads = kv_heads(&f, class, heads)?;
        let head_dim = head_dim(&f, class, hidden_size, heads)?;
        let max_position_embeddings =
            f.size("max_position_embeddings", 1 << 30, class.max_position_embeddings)?;
        let original =
            f.int("original_max_position_embeddings", 1 << 30)?.or(class.original_max_position_embeddings);
        let bias = |of: Bias, field: &str| match of {
            Bias::Fixed(bias) => Ok(bias),
            Bias::Configured(default) => Ok::<_, LoadError>(f.flag(field)?.unwrap_or(default)),
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
            intermediate_size: f.size("intermediate_size", 1 << 24, class.intermediate_size)?,
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
            embedding_multiplier: factor("embedding_multiplier")?,
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
        match (self.attention_multiplier, self.query_pre_attn_scalar) {
            (Some(m), _) => m,
            (None, Some(s)) => (f64::from(s)).powf(-0.5) as f32,
            (None, None) => f64::from(self.head_dim).powf(-0.5) as f32,
        }
    }

    /// What embeddings are multiplied with: the multiplier, and the square root of the hidden size in gemma.
    pub fn embedding_scale(&self) -> f32 {
        if self.model_type.starts_with("gemma") {
            return f64::from(self.hidden_size).sqrt() as f32;
        }
        self.embedding_multiplier
    }

    /// What logits are multiplied with: `logit_scale / logits_scaling`.
    pub fn output_scale(&self) -> f32 {
        self.logit_scale / self.logits_scaling
    }

    /// Bytes of keys and values of one sequence of `tokens` tokens, as f32 in every layer; `u64::MAX` if they are more.
    pub fn cache_bytes(&self, tokens: u32) -> u64 {
        let row = u64::from(self.num_key_value_heads) * u64::from(self.head_dim);
        [u64::from(tokens), row, 2 * 4].into_iter().fold(self.num_hidden_layers.into(), u64::saturating_mul)
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
fn model_type(f: &Fields<'_>, architectures: &[String]) -> String {
    match f.get("model_type") {
        Some(Value::String(name)) => name.clone(),
        Some(other) => json::excerpt(other),
        None => {
            let is_of = |model: &&&str| {
                let name = architectures.first();
                name.is_some_and(|name| arch::class(model).is_some_and(|class| class.is_of(name)))
            };
            MODEL_TYPES.iter().find(is_of).map(|model| (*model).to_owned()).unwrap_or_default()
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

fn activation(f: &Fields<'_>, class: &Class) -> Result<Activation, LoadError> {
    match f.get(class.act_field).map_or(Some(class.act), Value::as_str) {
        Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu" | "gelu_python") => Ok(Activation::Gelu),
        Some("gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_new" | "gelu_fast" | "gelu_accurate") => {
            Ok(Activation::GeluTanh)
        }
        Some("relu") => Ok(Activation::Relu),
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
mod tests {
    use super::*;

    fn base(model: &str) -> Map<String, Value> {
        let json = serde_json::json!({"model_type": model, "vocab_size": 100, "hidden_size": 64,
            "intermediate_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4});
        json.as_object().cloned().unwrap_or_default()
    }

    #[allow(clippy::needless_pass_by_value)]
    fn with(model: &str, fields: Value) -> Result<Config, LoadError> {
        let mut map = base(model);
        map.extend(fields.as_object().cloned().unwrap_or_default());
        Config::parse(&serde_json::to_vec(&map).unwrap_or_default())
    }

    #[test]
    fn every_known_model_has_defaults() {
        for &model in MODEL_TYPES {
            let config = with(model, serde_json::json!({"num_key_value_heads": null})).expect(model);
            assert_eq!(config.layer_types.len(), 6);
        }
        let error = with("parrot", serde_json::json!({})).expect_err("unknown");
        assert!(error.to_string().contains("qwen3") && error.to_string().contains("parrot"));
    }

    #[test]
    fn what_no_model_can_have_is_named() {
        for (json, field) in [
            (r#"{"num_hidden_layers": 1000000000000}"#, "num_hidden_layers"),
            (r#"{"num_hidden_layers": 0}"#, "num_hidden_layers"),
            (r#"{"num_hidden_layers": -1}"#, "num_hidden_layers"),
            (r#"{"num_hidden_layers": null}"#, "num_hidden_layers"),
            (r#"{"num_attention_heads": 0}"#, "num_attention_heads"),
            (r#"{"num_attention_heads": 3}"#, "hidden_size"),
            (r#"{"num_key_value_heads": 3}"#, "num_key_value_heads"),
            (r#"{"head_dim": 0}"#, "head_dim"),
            (r#"{"head_dim": 31}"#, "rope_parameters.rotary channels"),
            (r#"{"hidden_act": "swoosh"}"#, "hidden_act"),
            (r#"{"hidden_size": "64"}"#, "hidden_size"),
            (r#"{"vocab_size": 1e30}"#, "vocab_size"),
            (r#"{"rms_norm_eps": -1}"#, "rms_norm_eps"),
            (r#"{"rms_norm_eps": "tiny"}"#, "rms_norm_eps"),
            (r#"{"tie_word_embeddings": 1}"#, "tie_word_embeddings"),
            (r#"{"rope_theta": 0}"#, "rope_theta"),
            (r#"{"rope_scaling": 4}"#, "rope_scaling"),
            (r#"{"rope_scaling": {"type": "mrope"}}"#, "rope_parameters.rope_type"),
            (r#"{"partial_rotary_factor": 0}"#, "partial_rotary_factor"),
            (r#"{"eos_token_id": "x"}"#, "eos_token_id"),
        ] {
            let error = with("llama", serde_json::from_str(json).expect("JSON")).expect_err(json);
            assert!(matches!(&error, LoadError::Config { field: f, .. } if f == field), "{json}: {error}");
        }
        for (model, json, field) in [
            ("granite", r#"{"attention_multiplier": 0}"#, "attention_multiplier"),
            ("qwen2", "{}", "num_key_value_heads"),
            ("gemma3_text", r#"{"use_bidirectional_attention": true}"#, "use_bidirectional_attention"),
            ("bert", r#"{"is_decoder": true}"#, "is_decoder"),
        ] {
            let error = with(model, serde_json::from_str(json).expect("JSON")).expect_err(json);
            assert!(matches!(&error, LoadError::Config { field: f, .. } if f == field), "{json}: {error}");
        }
        let error = with("gemma2", serde_json::json!({"sliding_window": null})).expect_err("no window");
        assert!(matches!(error, LoadError::Config { field, .. } if field == "sliding_window"));
        let error = with("qwen3", serde_json::json!({"use_sliding_window": true, "layer_types": ["x"]}));
        assert!(error.is_err());
        for text in [&b"[]"[..], b"{}", b"", b"null", b"{\"model_type\": 3}"] {
            assert!(Config::parse(text).is_err());
        }
    }

    /// What transformers 5 does where fields are absent or belong to another family.
    #[test]
    fn defaults_are_those_of_the_family() {
        let read = |model: &str, json| with(model, json).expect(model);
        for (model, kv_heads) in [("gemma2", 4), ("glm4", 2), ("smollm3", 4), ("llama", 4), ("phi3", 4)] {
            assert_eq!(read(model, serde_json::json!({})).num_key_value_heads, kv_heads, "{model}");
        }
        // SmolLM3's window is on the layers that do not rotate.
        let windows = serde_json::json!({"use_sliding_window": true, "sliding_window": 8});
        let config = read("smollm3", windows);
        let windows: Vec<Option<u32>> = (0..6).map(|i| config.layer_window(i)).collect();
        assert_eq!(windows, [None, None, None, Some(8), None, None]);
        assert_eq!(config.uses_rope, [true, true, true, false, true, true]);
        let stray = serde_json::json!({"logits_scaling": 3, "attention_multiplier": 2, "logit_scale": 5,
            "embedding_multiplier": 7, "query_pre_attn_scalar": 9, "final_logit_softcapping": 4});
        let config = read("llama", stray);
        assert_eq!(
            (config.output_scale(), config.embedding_scale(), config.attention_scale()),
            (1.0, 1.0, 0.25)
        );
        assert_eq!(config.final_logit_softcapping, None);
        assert!(read("glm4", serde_json::json!({})).attention_bias);
        // The trained length beside a scaling goes before the one within.
        let scaled = serde_json::json!({"original_max_position_embeddings": 64, "rope_scaling": {
            "type": "yarn", "factor": 2, "original_max_position_embeddings": 32}});
        let RopeScaling::Yarn { original_max_position_embeddings, .. } = read("llama", scaled).rope.scaling
        else {
            panic!("yarn")
        };
        assert_eq!(original_max_position_embeddings, 64.0);
    }

    #[test]
    fn tokens_in_every_form() {
        let ids = serde_json::json!({"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": -1});
        let config = with("llama", ids).expect("valid");
        assert_eq!(
            (config.bos_token_id, config.eos_token_ids, config.pad_token_id),
            (Some(1), vec![2, 3], None)
        );
    }

    #[test]
    fn nested_text_config() {
        let nested = serde_json::json!({"model_type": "gemma3", "eos_token_id": 7, "text_config": {
            "model_type": "gemma3_text", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 6, "num_attention_heads": 4, "x": 1}});
        let config = Config::parse(nested.to_string().as_bytes()).expect("valid");
        assert_eq!((config.model_type.as_str(), config.eos_token_ids.as_slice()), ("gemma3_text", &[7][..]));
        assert!(config.raw.contains_key("x") && config.tie_word_embeddings);
        let full: Vec<usize> = (0..6).filter(|&i| config.layer_types[i] == LayerType::Full).collect();
        assert_eq!(full, [5]);
        let thetas = [0, 5].map(|i| config.layer_rope(i).map(|r| r.rope_theta));
        assert_eq!(thetas, [Some(1e4), Some(1e6)]);
    }

    /// Multimodal models that are not what their text part's name suggests, or have none.
    #[test]
    fn wrappers_that_cannot_be_read_are_named() {
        for (json, field) in [
            (r#"{"model_type": "paligemma", "text_config": {"model_type": "gemma2"}}"#, "model_type"),
            (r#"{"model_type": "llava"}"#, "text_config"),
            (r#"{"model_type": "llava", "text_config": null}"#, "text_config"),
            (r#"{"model_type": "llava", "text_config": [1]}"#, "text_config"),
            (r#"{"model_type": "qwen2", "text_config": 3}"#, "text_config"),
            (
                r#"{"model_type": "x", "text_config": {"model_type": "qwen2", "rope_scaling": {"type": "mrope"}}}"#,
                "rope_parameters.rope_type",
            ),
        ] {
            let error = Config::parse(json.as_bytes()).expect_err(json);
            assert!(matches!(&error, LoadError::Config { field: f, .. } if f == field), "{json}: {error}");
        }
        for (json, name) in [
            (r#"{"model_type": "qwen2_5_vl", "hidden_size": 64}"#, "qwen2_5_vl"),
            (
                r#"{"model_type": "qwen2_5_vl", "text_config": {"model_type": "qwen2_5_vl_text"}}"#,
                "qwen2_5_vl_text",
            ),
            (r#"{"model_type": "parrot_vl", "text_config": {"hidden_size": 64}}"#, "parrot_vl"),
            (r#"{"model_type": 7}"#, "7"),
        ] {
            let error = Config::parse(json.as_bytes()).expect_err(json);
            assert!(matches!(&error, LoadError::UnknownModel { got, .. } if got == name), "{json}: {error}");
        }
    }

    #[test]
    fn forms_in_which_fields_are_published() {
        let whole = serde_json::json!({"max_position_embeddings": 32768.0, "vocab_size": 1e3, "rope_theta": 1e6,
            "eos_token_id": [2.0], "torch_dtype": "torch.bfloat16"});
        let config = with("llama", whole).expect("whole numbers with a fraction of zero");
        assert_eq!((config.max_position_embeddings, config.vocab_size), (32768, 1000));
        assert_eq!((config.eos_token_ids, config.dtype.as_deref()), (vec![2], Some("bfloat16")));
        for (model, json, field) in [
            ("llama", r#"{"max_position_embeddings": 32768.5}"#, "max_position_embeddings"),
            ("llama", r#"{"max_position_embeddings": "32768"}"#, "max_position_embeddings"),
            ("llama", r#"{"rope_theta": "1e6"}"#, "rope_theta"),
            ("llama", r#"{"vocab_size": null}"#, "vocab_size"),
            ("qwen3", r#"{"num_key_value_heads": 2, "head_dim": null}"#, "head_dim"),
            ("gemma3_text", r#"{"sliding_window_pattern": 0}"#, "sliding_window_pattern"),
        ] {
            let error = with(model, serde_json::from_str(json).expect("JSON")).expect_err(json);
            assert!(matches!(&error, LoadError::Config { field: f, .. } if f == field), "{json}: {error}");
        }
        // Bare tokens that are no JSON are not taken for an absent field.
        for token in ["NaN", "Infinity", "-Infinity"] {
            let text = format!(r#"{{"model_type": "llama", "rope_theta": {token}}}"#);
            let error = Config::parse(text.as_bytes()).expect_err(token);
            let LoadError::Config { field, got, .. } = &error else { panic!("{token}: {error}") };
            assert!(field == "rope_theta" && got.contains(token), "{error}");
        }
    }

    #[test]
    fn a_missing_type_is_told_by_the_architecture() {
        for (architecture, model) in [
            ("LlamaForCausalLM", "llama"),
            ("Gemma3ForCausalLM", "gemma3_text"),
            ("BertModel", "bert"),
            ("Qwen2ForSequenceClassification", "qwen2"),
        ] {
            let json = serde_json::json!({"architectures": [architecture]});
            let config = Config::parse(json.to_string().as_bytes()).expect(architecture);
            assert_eq!(config.model_type, model);
        }
        for architecture in ["Llama4ForCausalLM", "Qwen2MoeForCausalLM", "Gemma3nForCausalLM", "BertX", ""] {
            let json = serde_json::json!({"architectures": [architecture]});
            let error = Config::parse(json.to_string().as_bytes()).expect_err(architecture);
            assert!(matches!(error, LoadError::UnknownModel { .. }), "{error}");
        }
    }

    #[test]
    fn how_long_a_sequence_may_be() {
        let limit = |model: &str, json| with(model, json).expect(model).max_context;
        let yarn = |extra: Value| {
            let mut scaling = serde_json::json!({"type": "yarn", "factor": 4.0});
            scaling.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
            serde_json::json!({"max_position_embeddings": 32, "rope_scaling": scaling, "num_key_value_heads": 4})
        };
        let original = serde_json::json!({"original_max_position_embeddings": 32});
        // As the cards of Qwen 2.5 and 3 say, with and without the trained length.
        assert_eq!(limit("qwen2", yarn(original)), 128);
        assert_eq!(limit("qwen2", yarn(serde_json::json!({}))), 128);
        // Both lengths stated: the longer one.
        let stated = serde_json::json!({"original_max_position_embeddings": 4});
        assert_eq!(limit("qwen3", yarn(stated)), 32);
        let linear = serde_json::json!({"max_position_embeddings": 64, "rope_scaling": {"type": "linear",
            "factor": 2.5}});
        assert_eq!(limit("llama", linear.clone()), 160);
        // Gemma 3's length has the scaling in it.
        assert_eq!(limit("gemma3_text", linear), 64);
        let llama3 = serde_json::json!({"max_position_embeddings": 64, "rope_scaling": {"rope_type": "llama3",
            "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8}});
        assert_eq!(limit("llama", llama3), 64);
        let dynamic = serde_json::json!({"max_position_embeddings": 64, "rope_scaling": {"type": "dynamic",
            "factor": 2.0}});
        assert_eq!(limit("llama", dynamic), 64);
        let absurd = serde_json::json!({"max_position_embeddings": 1 << 30, "rope_scaling": {"type": "linear",
            "factor": 1e12}});
        assert_eq!(limit("llama", absurd), u32::MAX);
        // Positions of an encoder are rows of a table, whatever is scaled.
        let table = serde_json::json!({"max_position_embeddings": 64, "rope_scaling": {"type": "linear",
            "factor": 2.0}});
        assert_eq!(limit("bert", table), 64);
    }

    #[test]
    fn sizes_do_not_overflow() {
        let most = serde_json::json!({"num_hidden_layers": 4096, "num_attention_heads": 4096,
            "num_key_value_heads": 4096, "head_dim": 4096});
        let config = with("llama", most).expect("valid");
        assert_eq!(config.cache_bytes(u32::MAX), u64::MAX);
        assert_eq!(config.cache_bytes(1), 1 << 39);
    }
}

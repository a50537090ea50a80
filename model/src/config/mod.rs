//! `config.json`: what an architecture needs, in one form for all checkpoints.
//!
//! Both styles are read: that of most published checkpoints (`rope_theta`, `rope_scaling`, `torch_dtype`) and that
//! of transformers 5 (`rope_parameters`, `dtype`). Defaults are those of transformers, per model.

use serde_json::{Map, Value};

use crate::LoadError;
use crate::format::json;
use crate::rope::{RopeParameters, RopeScaling};

/// Models that are known.
pub const KNOWN: [&str; 13] = [
    "bert",
    "cohere",
    "gemma2",
    "gemma3_text",
    "glm4",
    "granite",
    "llama",
    "mistral",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3",
    "smollm3",
];

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
    /// Family, one of [`KNOWN`].
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

/// What transformers assumes where a configuration says nothing.
struct Defaults {
    /// Key/value heads; `None`: as many as query heads.
    kv_heads: Option<u32>,
    head_dim: Option<u32>,
    max_position_embeddings: u32,
    /// Trained length where a scaling states none; it has precedence over that of the scaling.
    original: Option<u32>,
    eps: f64,
    tie: bool,
    /// Key, value and query biases, output bias, MLP bias; `None`: as configured.
    biases: [Option<bool>; 3],
    /// Biases of attention where nothing is configured.
    attention_bias: bool,
    theta: f64,
    partial: f64,
    act: &'static str,
}

fn defaults(model: &str) -> Option<Defaults> {
    const CONFIGURED: [Option<bool>; 3] = [None, None, Some(false)];
    let base = Defaults {
        kv_heads: None,
        head_dim: None,
        max_position_embeddings: 2048,
        original: None,
        eps: 1e-6,
        tie: false,
        biases: CONFIGURED,
        attention_bias: false,
        theta: 10000.0,
        partial: 1.0,
        act: "silu",
    };
    let no_bias = [Some(false); 3];
    Some(match model {
        "llama" | "granite" => Defaults { biases: [None; 3], ..base },
        "mistral" => {
            Defaults { kv_heads: Some(8), max_position_embeddings: 131_072, biases: no_bias, ..base }
        }
        "qwen2" => Defaults {
            kv_heads: Some(32),
            max_position_embeddings: 32768,
            biases: [Some(true), Some(false), Some(false)],
            ..base
        },
        "qwen3" => {
            Defaults { kv_heads: Some(32), max_position_embeddings: 32768, head_dim: Some(128), ..base }
        }
        "gemma2" => Defaults {
            kv_heads: Some(4),
            max_position_embeddings: 8192,
            head_dim: Some(256),
            tie: true,
            act: "gelu_pytorch_tanh",
            ..base
        },
        "gemma3_text" => Defaults {
            kv_heads: Some(4),
            max_position_embeddings: 131_072,
            head_dim: Some(256),
            tie: true,
            act: "gelu_pytorch_tanh",
            theta: 1e6,
            ..base
        },
        "phi3" => Defaults {
            max_position_embeddings: 4096,
            original: Some(4096),
            eps: 1e-5,
            biases: no_bias,
            ..base
        },
        "glm4" => Defaults {
            kv_heads: Some(2),
            attention_bias: true,
            max_position_embeddings: 131_072,
            eps: 1.5625e-7,
            head_dim: Some(128),
            biases: [None, Some(false), Some(false)],
            partial: 0.5,
            ..base
        },
        "cohere" => {
            Defaults { max_position_embeddings: 8192, eps: 1e-5, tie: true, theta: 500_000.0, ..base }
        }
        "olmo2" => Defaults { eps: 1e-5, ..base },
        "smollm3" => Defaults {
            kv_heads: Some(4),
            max_position_embeddings: 32768,
            tie: true,
            biases: [None; 3],
            theta: 2e6,
            ..base
        },
        "bert" => Defaults {
            max_position_embeddings: 512,
            eps: 1e-12,
            tie: true,
            biases: [Some(true); 3],
            act: "gelu",
            ..base
        },
        _ => return None,
    })
}

/// Reads fields and says what is wrong with them.
struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|v| !v.is_null())
    }

    fn bad(&self, field: &str, want: impl Into<String>) -> LoadError {
        bad(field, self.0.get(field), want)
    }

    fn int(&self, field: &str, max: u32) -> Result<Option<u32>, LoadError> {
        self.get(field)
            .map(|v| {
                let n = v.as_u64().filter(|n| (1..=u64::from(max)).contains(n));
                n.map(|n| n as u32).ok_or_else(|| self.bad(field, format!("a whole number from 1 to {max}")))
            })
            .transpose()
    }

    fn required(&self, field: &str, max: u32) -> Result<u32, LoadError> {
        self.int(field, max)?.ok_or_else(|| self.bad(field, format!("a whole number from 1 to {max}")))
    }

    fn float(&self, field: &str) -> Result<Option<f64>, LoadError> {
        self.get(field)
            .map(|v| v.as_f64().filter(|v| v.abs() < 1e30).ok_or_else(|| self.bad(field, "a finite number")))
            .transpose()
    }

    /// A number above zero.
    fn positive(&self, field: &str) -> Result<Option<f32>, LoadError> {
        match self.float(field)? {
            Some(v) if v as f32 <= 0.0 => Err(self.bad(field, "a number above 0")),
            v => Ok(v.map(|v| v as f32)),
        }
    }

    fn flag(&self, field: &str) -> Result<Option<bool>, LoadError> {
        self.get(field).map(|v| v.as_bool().ok_or_else(|| self.bad(field, "true or false"))).transpose()
    }

    /// One token or several. Negative numbers, which some files use for none, are left out.
    fn tokens(&self, field: &str) -> Result<Vec<u32>, LoadError> {
        let list = match self.get(field) {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        let mut tokens = Vec::new();
        for v in list {
            match v.as_i64().map(u32::try_from) {
                Some(Ok(token)) => tokens.push(token),
                Some(Err(_)) if v.as_i64() < Some(0) => {}
                _ => return Err(self.bad(field, "a token id or a list of them")),
            }
        }
        Ok(tokens)
    }
}

fn bad(field: &str, got: Option<&Value>, want: impl Into<String>) -> LoadError {
    let got = got.map_or_else(|| "absent".to_owned(), ToString::to_string).chars().take(200).collect();
    LoadError::Config { field: field.to_owned(), got, want: want.into() }
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// Text that is not JSON, an unknown model, a field that is missing or that no model can have.
    pub fn parse(bytes: &[u8]) -> Result<Self, LoadError> {
        let value = json::parse("config.json", bytes)?;
        let Value::Object(top) = value else { return Err(bad("top level", Some(&value), "an object")) };
        let raw = match top.get("text_config") {
            Some(Value::Object(nested)) => {
                let mut raw = nested.clone();
                let shared = [
                    "architectures",
                    "tie_word_embeddings",
                    "bos_token_id",
                    "eos_token_id",
                    "pad_token_id",
                    "torch_dtype",
                    "dtype",
                    "vocab_size",
                    "model_type",
                    "quantization_config",
                    "compression_config",
                ];
                for name in shared {
                    if let (true, Some(v)) = (raw.get(name).is_none_or(Value::is_null), top.get(name)) {
                        raw.insert(name.to_owned(), v.clone());
                    }
                }
                raw
            }
            _ => top,
        };
        Self::from_map(raw)
    }

    fn from_map(raw: Map<String, Value>) -> Result<Self, LoadError> {
        let f = Fields(&raw);
        let model_type = f.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let model = model_type.as_str();
        let Some(d) = defaults(model) else {
            return Err(LoadError::UnknownModel { got: model_type, known: KNOWN.to_vec() });
        };
        let gemma = matches!(model, "gemma2" | "gemma3_text");

        let hidden_size = f.required("hidden_size", 1 << 20)?;
        let num_hidden_layers = f.required("num_hidden_layers", 4096)?;
        let heads = f.required("num_attention_heads", 4096)?;
        let kv_heads = match (f.int("num_key_value_heads", 4096)?, raw.get("num_key_value_heads")) {
            (Some(kv_heads), _) => kv_heads,
            (None, Some(_)) => heads, // null
            (None, None) => d.kv_heads.unwrap_or(heads),
        };
        if !heads.is_multiple_of(kv_heads) {
            let want = format!("a divisor of num_attention_heads ({heads})");
            return Err(bad("num_key_value_heads", Some(&kv_heads.into()), want));
        }
        let head_dim = match (f.int("head_dim", 4096)?, d.head_dim) {
            (Some(head_dim), _) | (None, Some(head_dim)) => head_dim,
            (None, None) if hidden_size.is_multiple_of(heads) => hidden_size / heads,
            (None, None) => {
                let want = format!("a multiple of num_attention_heads ({heads}) where head_dim is absent");
                return Err(f.bad("hidden_size", want));
            }
        };
        let max_position_embeddings =
            f.int("max_position_embeddings", 1 << 30)?.unwrap_or(d.max_position_embeddings);
        let original = f.int("original_max_position_embeddings", 1 << 30)?.or(d.original);
        let act_field = if gemma { "hidden_activation" } else { "hidden_act" };
        let act = f.get(act_field).map_or(Some(d.act), Value::as_str);
        let hidden_act = match act {
            Some("silu" | "swish") => Activation::Silu,
            Some("gelu" | "gelu_python") => Activation::Gelu,
            Some("gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_new" | "gelu_fast" | "gelu_accurate") => {
                Activation::GeluTanh
            }
            Some("relu") => Activation::Relu,
            _ => return Err(f.bad(act_field, "silu, gelu, gelu_pytorch_tanh, gelu_new, gelu_fast or relu")),
        };
        for field in ["use_bidirectional_attention", "is_decoder", "add_cross_attention"] {
            // Other masks than those that are built in: gemma encoders, decoders made of BERT.
            if matches!(
                (model, field),
                ("gemma2" | "gemma3_text", "use_bidirectional_attention") | ("bert", _)
            ) && f.flag(field)?.unwrap_or(false)
            {
                return Err(f.bad(field, "false (other kinds of attention are not supported yet)"));
            }
        }
        if f.get("position_embedding_type").is_some_and(|v| v != "absolute") {
            return Err(f.bad("position_embedding_type", "absolute"));
        }
        let configured = f.flag("attention_bias")?.unwrap_or(d.attention_bias);
        let attention_bias = d.biases[0].unwrap_or(configured);
        let attention_output_bias = d.biases[1].unwrap_or(configured);
        let mlp_bias = d.biases[2].map_or_else(|| f.flag("mlp_bias").map(|b| b.unwrap_or(false)), Ok)?;

        let uses_rope = rope_layers(&f, model, num_hidden_layers)?;
        let (layer_types, sliding_window) = layer_types(&f, model, num_hidden_layers, &uses_rope)?;
        let (rope, rope_sliding) = ropes(&f, model, &d, max_position_embeddings, original)?;
        if model != "bert" {
            for rope in [Some(&rope), rope_sliding.as_ref()].into_iter().flatten() {
                let rotary_dim = rope.rotary_dim(head_dim);
                rope.frequencies(rotary_dim, None)?;
                rope.frequencies(rotary_dim, Some(max_position_embeddings))?;
            }
        }

        let softcap = |field: &str, default: f32| match raw.get(field) {
            None if model == "gemma2" => Ok(Some(default)),
            _ if gemma => f.positive(field),
            _ => Ok(None),
        };
        // Fields that only some families know; transformers leaves them out of account elsewhere.
        let factor = |family: &str, field: &str, default: f32| {
            let stated = if model == family { f.positive(field)?.or(Some(default)) } else { None };
            Ok::<f32, LoadError>(stated.unwrap_or(1.0))
        };
        let rms_norm_eps = f.float("rms_norm_eps")?.unwrap_or(d.eps);
        let layer_norm_eps = f.float("layer_norm_eps")?.unwrap_or(d.eps);
        for (field, eps) in [("rms_norm_eps", rms_norm_eps), ("layer_norm_eps", layer_norm_eps)] {
            if !(0.0..1.0).contains(&eps) {
                return Err(f.bad(field, "from 0 to 1"));
            }
        }
        let strings = |v: &Value| v.as_str().map(str::to_owned);
        Ok(Self {
            architectures: f
                .get("architectures")
                .and_then(Value::as_array)
                .map(|list| list.iter().filter_map(strings).collect())
                .unwrap_or_default(),
            dtype: f.get("dtype").or_else(|| f.get("torch_dtype")).and_then(strings),
            vocab_size: f.required("vocab_size", 1 << 24)?,
            hidden_size,
            intermediate_size: f.required("intermediate_size", 1 << 24)?,
            num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            hidden_act,
            max_position_embeddings,
            original_max_position_embeddings: original,
            rms_norm_eps: rms_norm_eps as f32,
            layer_norm_eps: layer_norm_eps as f32,
            tie_word_embeddings: f.flag("tie_word_embeddings")?.unwrap_or(d.tie),
            attention_bias,
            attention_output_bias,
            mlp_bias,
            sliding_window,
            layer_types,
            partial_rotary_factor: rope.partial_rotary_factor,
            rope,
            rope_sliding,
            uses_rope,
            attn_logit_softcapping: softcap("attn_logit_softcapping", 50.0)?,
            final_logit_softcapping: softcap("final_logit_softcapping", 30.0)?,
            query_pre_attn_scalar: if gemma {
                f.positive("query_pre_attn_scalar")?.or(Some(256.0))
            } else {
                None
            },
            embedding_multiplier: factor("granite", "embedding_multiplier", 1.0)?,
            residual_multiplier: factor("granite", "residual_multiplier", 1.0)?,
            attention_multiplier: match model {
                "granite" => Some(factor("granite", "attention_multiplier", 1.0)?),
                _ => None,
            },
            logits_scaling: factor("granite", "logits_scaling", 1.0)?,
            logit_scale: factor("cohere", "logit_scale", 0.0625)?,
            use_qk_norm: f.flag("use_qk_norm")?.unwrap_or(false),
            type_vocab_size: match f.int("type_vocab_size", 1 << 16)? {
                None if model == "bert" => 2,
                n => n.unwrap_or(0),
            },
            bos_token_id: f.tokens("bos_token_id")?.first().copied(),
            eos_token_ids: f.tokens("eos_token_id")?,
            pad_token_id: f.tokens("pad_token_id")?.first().copied(),
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

    /// Bytes of keys and values of one sequence of `tokens` tokens, as f32 in every layer.
    pub fn cache_bytes(&self, tokens: u32) -> u64 {
        let row = u64::from(self.num_key_value_heads) * u64::from(self.head_dim);
        2 * 4 * u64::from(self.num_hidden_layers) * u64::from(tokens) * row
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

/// Which layers rotate.
fn rope_layers(f: &Fields<'_>, model: &str, layers: u32) -> Result<Vec<bool>, LoadError> {
    let layers = layers as usize;
    match model {
        "bert" => Ok(vec![false; layers]),
        "smollm3" => {
            let Some(list) = f.get("no_rope_layers") else {
                let interval = f.int("no_rope_layer_interval", 1 << 20)?.unwrap_or(4) as usize;
                return Ok((1..=layers).map(|i| i % interval != 0).collect());
            };
            let list = list.as_array().filter(|list| list.len() == layers);
            let flags = list.and_then(|list| {
                list.iter().map(|v| v.as_u64().filter(|v| *v < 2).map(|v| v == 1)).collect::<Option<Vec<_>>>()
            });
            flags.ok_or_else(|| f.bad("no_rope_layers", format!("a list of {layers} numbers, 1 or 0")))
        }
        _ => Ok(vec![true; layers]),
    }
}

/// What each layer sees, and how wide the window is.
fn layer_types(
    f: &Fields<'_>,
    model: &str,
    layers: u32,
    uses_rope: &[bool],
) -> Result<(Vec<LayerType>, Option<u32>), LoadError> {
    let layers = layers as usize;
    let slides = match model {
        "mistral" | "phi3" | "gemma2" | "gemma3_text" => true,
        "qwen2" | "qwen3" | "smollm3" => f.flag("use_sliding_window")?.unwrap_or(false),
        _ => false,
    };
    if !slides {
        return Ok((vec![LayerType::Full; layers], None));
    }
    let window = match f.int("sliding_window", 1 << 30)? {
        None if !f.0.contains_key("sliding_window") && !matches!(model, "phi3" | "smollm3") => Some(4096),
        window => window,
    };
    let sliding = |test: &dyn Fn(usize) -> bool| {
        (0..layers).map(|i| if test(i) { LayerType::Sliding } else { LayerType::Full }).collect::<Vec<_>>()
    };
    let types = if let Some(list) = f.get("layer_types") {
        let list = list.as_array().filter(|list| list.len() == layers);
        let types = list.and_then(|list| {
            let parse = |v: &Value| match v.as_str() {
                Some("full_attention") => Some(LayerType::Full),
                Some("sliding_attention") => Some(LayerType::Sliding),
                _ => None,
            };
            list.iter().map(parse).collect::<Option<Vec<_>>>()
        });
        let want = || format!("a list of {layers} of full_attention and sliding_attention");
        types.ok_or_else(|| f.bad("layer_types", want()))?
    } else {
        match (model, window) {
            ("gemma2", _) => sliding(&|i| i % 2 == 0),
            ("gemma3_text", _) => {
                let pattern = f.int("sliding_window_pattern", 1 << 20)?.unwrap_or(6) as usize;
                sliding(&|i| (i + 1) % pattern != 0)
            }
            (_, None) => sliding(&|_| false),
            ("qwen2" | "qwen3", _) => {
                let from = match f.get("max_window_layers") {
                    None => 28,
                    Some(v) => v.as_u64().ok_or_else(|| f.bad("max_window_layers", "a whole number"))?,
                };
                sliding(&|i| i as u64 >= from)
            }
            ("smollm3", _) => sliding(&|i| !uses_rope[i]),
            _ => sliding(&|_| true),
        }
    };
    if !types.contains(&LayerType::Sliding) {
        return Ok((types, None));
    }
    if window.is_none() {
        return Err(f.bad("sliding_window", "a whole number: some layers have sliding attention"));
    }
    Ok((types, window))
}

/// Rotary embeddings of full and, where they differ, of sliding layers.
fn ropes(
    f: &Fields<'_>,
    model: &str,
    d: &Defaults,
    max: u32,
    original: Option<u32>,
) -> Result<(RopeParameters, Option<RopeParameters>), LoadError> {
    let object = |field: &str| match f.get(field) {
        None => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(_) => Err(f.bad(field, "an object or null")),
    };
    let theta = match f.float("rope_theta")? {
        Some(theta) if theta <= 1.0 => return Err(f.bad("rope_theta", "a number above 1")),
        theta => theta.unwrap_or(d.theta),
    };
    let partial = f.float("partial_rotary_factor")?.unwrap_or(d.partial);
    if !(partial > 0.0 && partial <= 1.0) {
        return Err(f.bad("partial_rotary_factor", "above 0, at most 1"));
    }
    let parse =
        |params: &Map<String, Value>, theta| RopeParameters::parse(params, theta, partial, max, original);
    let local = match f.float("rope_local_base_freq")? {
        Some(theta) if theta <= 1.0 => return Err(f.bad("rope_local_base_freq", "a number above 1")),
        theta => theta.unwrap_or(10000.0),
    };
    let plain = |theta| RopeParameters {
        rope_theta: theta,
        partial_rotary_factor: partial,
        max_position_embeddings: max,
        scaling: RopeScaling::Default,
    };
    let params = object("rope_parameters")?;
    if let Some(params) = params {
        let part = |name: &str| match params.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            other => Err(bad(&format!("rope_parameters.{name}"), other, "an object")),
        };
        let (full, sliding) = (part("full_attention")?, part("sliding_attention")?);
        if full.is_some() || sliding.is_some() {
            let rope = full.map_or_else(|| Ok(plain(theta)), |p| parse(p, theta))?;
            let base = if model == "gemma3_text" { local } else { theta };
            let sliding = sliding.map_or_else(|| Ok(plain(base)), |p| parse(p, base))?;
            return Ok((rope, Some(sliding)));
        }
    }
    let empty = Map::new();
    let old = object("rope_scaling")?.filter(|old| !old.is_empty());
    let params = old.or(params).unwrap_or(&empty);
    let rope = parse(params, theta)?;
    Ok((rope, (model == "gemma3_text").then(|| plain(local))))
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
        for model in KNOWN {
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
}

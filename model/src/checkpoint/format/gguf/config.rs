//! Metadata → `config.json`: every field then goes the way of all checkpoints.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Architecture, Array, Family, Gguf, GgufTensor, Value as Meta, field};
use crate::LoadError;

/// Divisors of the frequencies that a file holds as tensors.
#[derive(Debug, Default)]
pub(super) struct RopeFactors {
    /// `rope_freqs.weight`: for all lengths.
    pub all: Option<Vec<f32>>,
    /// `rope_factors_short.weight`, `rope_factors_long.weight`.
    pub short_long: Option<[Vec<f32>; 2]>,
}

/// Which layers slide: a truth value for each, or a period.
const PATTERN: &str = "attention.sliding_window_pattern";

/// Numbers of experts, and what configurations call them.
const EXPERTS: &[(&str, &[&str])] = &[
    ("expert_count", &["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"]),
    ("expert_used_count", &["num_experts_per_tok", "moe_k", "moe_topk"]),
    ("expert_feed_forward_length", &["moe_intermediate_size"]),
];

/// More layers than any model has.
const MAX_LAYERS: u64 = 1 << 16;

/// Modules of a layer whose biases the network adds together.
const QKV: &[&str] = &["attn_q", "attn_k", "attn_v", "attn_qkv"];
const MLP: &[&str] = &["ffn_gate", "ffn_up", "ffn_down"];

/// What the metadata say of one network: for [`Family::fields`].
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'a> {
    gguf: &'a Gguf,
    family: &'static str,
    /// Layers.
    pub layers: u64,
    /// Channels of the residual stream.
    pub hidden: u64,
    /// Query heads.
    pub heads: u64,
    /// Channels of a head.
    pub head_dim: u64,
    /// Keys that sliding layers see.
    pub window: Option<u64>,
}

impl Metadata<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.family)
    }

    /// A number, by its key without the family.
    ///
    /// # Errors
    /// As [`Gguf::float`].
    pub fn float(&self, name: &str) -> Result<Option<f64>, LoadError> {
        self.gguf.float(&self.key(name))
    }

    /// A number that must be there.
    ///
    /// # Errors
    /// As [`Gguf::float`]; none.
    pub fn needed(&self, name: &str) -> Result<f64, LoadError> {
        self.float(name)?.ok_or_else(|| self.bad(name, "a number"))
    }

    /// A whole number, the same for all layers.
    ///
    /// # Errors
    /// As [`Gguf::uint`].
    pub fn uint(&self, name: &str) -> Result<Option<u64>, LoadError> {
        self.gguf.per_layer(&self.key(name))
    }

    /// A truth value.
    ///
    /// # Errors
    /// As [`Gguf::flag`].
    pub fn flag(&self, name: &str) -> Result<Option<bool>, LoadError> {
        self.gguf.flag(&self.key(name))
    }

    /// Whether the file has a tensor, by ggml's name.
    pub fn has(&self, tensor: &str) -> bool {
        self.gguf.tensor(tensor).is_some()
    }

    /// A value that cannot be used.
    pub fn bad(&self, name: &str, want: &str) -> LoadError {
        self.gguf.bad(&self.key(name), want)
    }

    /// Factor of the scores, where the file states one.
    ///
    /// # Errors
    /// One that no model can have.
    pub fn attention_scale(&self) -> Result<Option<f64>, LoadError> {
        const NAME: &str = "attention.scale";
        match self.float(NAME)? {
            None | Some(0.0) => Ok(None),
            Some(scale) if (1e-6..1e6).contains(&scale) => Ok(Some(scale)),
            Some(_) => Err(self.bad(NAME, "0 (none) or a number from 1e-6 to 1e6")),
        }
    }

    /// Refuses what changes the attention and is not built in.
    fn refuse_other_attention(&self, family: &Family) -> Result<(), LoadError> {
        let head_dim = self.head_dim;
        let usual = (head_dim as f64).sqrt().recip();
        let other = |scale: f64| !family.scaled_scores && (scale - usual).abs() > 1e-6 * usual;
        if self.attention_scale()?.is_some_and(other) {
            let want = format!("{usual}, one divided by the root of the {head_dim} channels of a head");
            return Err(self.bad("attention.scale", &want));
        }
        if !family.encoder && self.flag("attention.causal")? == Some(false) {
            return Err(self.bad("attention.causal", "true (tokens see those before them)"));
        }
        Ok(())
    }

    /// `query_pre_attn_scalar` of Gemma. As in llama.cpp, the largest model of a generation, which is known by its number
    /// of layers, divides by the channels per head of the residual stream.
    ///
    /// # Errors
    /// As [`Metadata::attention_scale`].
    pub fn query_pre_attn_scalar(&self, layers_of_largest: u64) -> Result<f64, LoadError> {
        Ok(match self.attention_scale()? {
            Some(scale) => (scale * scale).recip(),
            None if self.layers == layers_of_largest => (self.hidden / self.heads.max(1)) as f64,
            None => self.head_dim as f64,
        })
    }

    /// The four factors of Granite.
    ///
    /// # Errors
    /// Those that are missing or that no model can have.
    pub fn granite(&self, config: &mut Map<String, Value>) -> Result<(), LoadError> {
        let scale = self.attention_scale()?.unwrap_or_else(|| (self.head_dim as f64).sqrt().recip());
        config.insert("attention_multiplier".to_owned(), scale.into());
        config.insert("logits_scaling".to_owned(), self.needed("logit_scale")?.into());
        for (name, key) in
            [("embedding_multiplier", "embedding_scale"), ("residual_multiplier", "residual_scale")]
        {
            // 0 is llama.cpp's word for none.
            if let Some(v) = self.float(key)?.filter(|&v| v != 0.0) {
                config.insert(name.to_owned(), v.into());
            }
        }
        if self.flag("rope.scaling.finetuned")? == Some(false) {
            return Err(self.bad("rope.scaling.finetuned", "true (layers that rotate)"));
        }
        Ok(())
    }

    /// Ranks and channels of multi-head latent attention. Files without the keys that end in `_mla` state the channels of a head
    /// where others state those of the latent; yarn's two magnitudes are one, as llama.cpp has it.
    ///
    /// # Errors
    /// Numbers that are missing, heads without channels that are not rotated.
    pub fn latent(&self, config: &mut Map<String, Value>) -> Result<(), LoadError> {
        const MAGNITUDE: &str = "rope.scaling.yarn_log_multiplier";
        let needed = |name: &str| self.uint(name)?.ok_or_else(|| self.bad(name, "a whole number"));
        let of_head = |name: &str, mla: &str| match self.uint(mla)? {
            Some(n) => Ok(n),
            None => needed(name),
        };
        let key = of_head("attention.key_length", "attention.key_length_mla")?;
        let value = of_head("attention.value_length", "attention.value_length_mla")?;
        let Some(nope) = key.checked_sub(self.head_dim).filter(|&nope| nope > 0) else {
            let want = format!("more than {}, the rotated channels (rope.dimension_count)", self.head_dim);
            return Err(self.bad("attention.key_length_mla", &want));
        };
        let q_rank = self.uint("attention.q_lora_rank")?.filter(|&rank| rank > 0);
        config.insert("num_key_value_heads".to_owned(), self.heads.into());
        config.insert("q_lora_rank".to_owned(), q_rank.into());
        config.insert("kv_lora_rank".to_owned(), needed("attention.kv_lora_rank")?.into());
        config.insert("qk_nope_head_dim".to_owned(), nope.into());
        config.insert("qk_rope_head_dim".to_owned(), self.head_dim.into());
        config.insert("v_head_dim".to_owned(), value.into());
        if let (Some(Value::Object(scaling)), Some(log)) =
            (config.get_mut("rope_scaling"), self.float(MAGNITUDE)?)
        {
            for name in ["mscale", "mscale_all_dim"] {
                scaling.insert(name.to_owned(), (10.0 * log).into());
            }
        }
        Ok(())
    }

    /// Router, shared network and dense layers of the DeepSeek family. What is absent is what llama.cpp assumes.
    ///
    /// # Errors
    /// Values of other types; a function of the router that is not known.
    pub fn deepseek_experts(&self, config: &mut Map<String, Value>) -> Result<(), LoadError> {
        const GATING: &str = "expert_gating_func";
        for (key, field) in [
            ("expert_shared_count", "n_shared_experts"),
            ("leading_dense_block_count", "first_k_dense_replace"),
            ("expert_group_count", "n_group"),
            ("expert_group_used_count", "topk_group"),
        ] {
            if let Some(n) = self.uint(key)? {
                config.insert(field.to_owned(), n.into());
            }
        }
        let normalised = self.flag("expert_weights_norm")?.unwrap_or(false);
        config.insert("norm_topk_prob".to_owned(), normalised.into());
        if let Some(scale) = self.float("expert_weights_scale")?.filter(|&v| v != 0.0) {
            config.insert("routed_scaling_factor".to_owned(), scale.into());
        }
        match self.uint(GATING)? {
            None | Some(0) => {}
            Some(1) => drop(config.insert("scoring_func".to_owned(), "softmax".into())),
            Some(2) => drop(config.insert("scoring_func".to_owned(), "sigmoid".into())),
            Some(_) => return Err(self.bad(GATING, "1 or 2 (softmax, sigmoid)")),
        }
        Ok(())
    }
}

impl Gguf {
    /// Whether any layer has a bias of one of these modules.
    fn has_bias(&self, modules: &[&str]) -> bool {
        self.tensors.iter().any(|t| {
            let part = t.name.strip_suffix(".bias").and_then(|name| name.strip_prefix("blk."));
            part.and_then(|part| part.split_once('.')).is_some_and(|(_, module)| modules.contains(&module))
        })
    }

    /// Names of the weights and biases of all modules that have a bias in the network which this file describes.
    pub(super) fn biased(&self, biases: [Option<bool>; 3]) -> Vec<[String; 2]> {
        let attention = self.has_bias(&[QKV, &["attn_output"]].concat());
        let parts: [(&[&str], bool); 3] =
            [(QKV, attention), (&["attn_output"], attention), (MLP, self.has_bias(MLP))];
        let mut modules = Vec::new();
        for ((names, found), kind) in parts.into_iter().zip(biases) {
            let used = kind.unwrap_or(found);
            modules.extend(names.iter().copied().filter(|_| used));
        }
        let pair = |t: &GgufTensor| {
            let name = t.name.strip_suffix(".weight")?;
            let (_, module) = name.strip_prefix("blk.")?.split_once('.')?;
            modules.contains(&module).then(|| [t.name.clone(), format!("{name}.bias")])
        };
        self.tensors.iter().filter_map(pair).collect()
    }

    /// The architecture that the file names. Experts, and a window, tell those apart that have one name.
    pub(super) fn architecture(
        &self,
        known: &'static [Architecture],
    ) -> Result<&'static Architecture, LoadError> {
        const KEY: &str = "general.architecture";
        let name = self.text(KEY)?.unwrap_or_default();
        let window = self.metadata.get(&format!("{name}.attention.sliding_window"));
        let windowed = window.is_some_and(|w| !matches!(w, Meta::Uint(0) | Meta::Int(0)));
        let is_known = |a: &&Architecture| !a.family.name.is_empty();
        let named = || known.iter().filter(|a| is_known(a) && a.family.name == name);
        let mixture = self.uint(&format!("{name}.expert_count")).ok().flatten().is_some_and(|n| n > 0);
        let fits = |a: &&Architecture| (a.family.windowed, a.family.mixture) == (windowed, mixture);
        let near = |a: &&Architecture| a.family.mixture == mixture;
        named().find(fits).or_else(|| named().find(near)).or_else(|| named().next()).ok_or_else(|| {
            let names: BTreeSet<_> = known.iter().filter(is_known).map(|a| a.family.name).collect();
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            field(&self.file, KEY, format!("{name:?}"), &format!("one of {names}"))
        })
    }

    /// A number that may be given for each layer, but must be the same for all.
    pub(super) fn per_layer(&self, key: &str) -> Result<Option<u64>, LoadError> {
        match self.metadata.get(key) {
            Some(Meta::Array(_)) => {
                let all = self.uints(key)?.unwrap_or_default();
                match all.as_slice() {
                    [first, rest @ ..] if rest.iter().all(|v| v == first) => Ok(Some(*first)),
                    _ => Err(self.bad(key, "the same number for all layers (others are not supported yet)")),
                }
            }
            _ => self.uint(key),
        }
    }

    /// The `config.json` that says the same as the metadata.
    pub(super) fn config(
        &self,
        architecture: &Architecture,
        factors: &RopeFactors,
    ) -> Result<Map<String, Value>, LoadError> {
        let family = &architecture.family;
        let key = |name: &str| format!("{}.{name}", family.name);
        let uint = |name: &str| self.per_layer(&key(name));
        let float = |name: &str| self.float(&key(name));
        let needed = |name: &str| uint(name)?.ok_or_else(|| self.bad(&key(name), "a whole number"));
        if let (Some(experts @ 1..), false) = (uint("expert_count")?, family.mixture) {
            let want = "0 (mixtures of experts of this architecture are not supported yet)";
            return Err(field(&self.file, &key("expert_count"), experts.to_string(), want));
        }
        let window = uint("attention.sliding_window")?.filter(|&w| w > 0);
        let (hidden, heads) = (needed("embedding_length")?, needed("attention.head_count")?);
        let layers = needed("block_count")?;
        let head_dim = match uint("attention.key_length")? {
            _ if family.latent => needed("rope.dimension_count")?,
            Some(dim) => dim,
            None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                let want = format!("a multiple of attention.head_count ({heads})");
                return Err(field(&self.file, &key("embedding_length"), hidden.to_string(), &want));
            }
        };
        let values = uint("attention.value_length")?.filter(|&v| v != head_dim && !family.latent);
        if let Some(values) = values {
            let want = format!("{head_dim}, as attention.key_length");
            return Err(field(&self.file, &key("attention.value_length"), values.to_string(), &want));
        }
        let context = needed("context_length")?;
        let rows = |name: &str| self.tensor(name).and_then(|t| t.shape.first().copied());
        let has = |name: &str| self.tensor(name).is_some();
        let vocab = rows("token_embd.weight").map_or_else(|| uint("vocab_size"), |n| Ok(Some(n)))?;
        let Some(vocab) = vocab else { return Err(self.bad(&key("vocab_size"), "a whole number")) };
        let pooled = uint("pooling_type")?.is_some_and(|t| t > 0);
        let kind = if pooled || family.encoder { "Model" } else { "ForCausalLM" };
        let class = format!("{}{kind}", architecture.class);
        let mut c = Map::new();
        let mut set = |name: &str, value: Value| {
            c.insert(name.to_owned(), value);
        };
        set("model_type", architecture.model_type.into());
        set("architectures", json!([class]));
        set("hidden_size", hidden.into());
        set("intermediate_size", needed("feed_forward_length")?.into());
        set("num_hidden_layers", layers.into());
        set("num_attention_heads", heads.into());
        set("num_key_value_heads", uint("attention.head_count_kv")?.unwrap_or(heads).into());
        set("head_dim", head_dim.into());
        set("vocab_size", vocab.into());
        set("max_position_embeddings", context.into());
        set("attention_bias", self.has_bias(&[QKV, &["attn_output"]].concat()).into());
        set("mlp_bias", self.has_bias(MLP).into());
        set("sliding_window", window.into());
        let eps = ["attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"];
        match (float(eps[0])?, float(eps[1])?) {
            (None, None) => return Err(self.bad(&key(eps[0]), "a number")),
            (rms, layer) => {
                let given = [("rms_norm_eps", rms), ("layer_norm_eps", layer)];
                given
                    .into_iter()
                    .filter_map(|(name, v)| Some((name, v?)))
                    .for_each(|(n, v)| set(n, v.into()));
            }
        }
        if family.mixture {
            // Under the names that any class with experts knows.
            for (name, own) in EXPERTS {
                if let Some(n) = uint(name)? {
                    own.iter().for_each(|own| set(own, n.into()));
                }
            }
        }
        if family.encoder {
            set("type_vocab_size", rows("token_types.weight").unwrap_or(2).into());
        } else {
            set("tie_word_embeddings", (!has("output.weight")).into());
        }
        // For classes that have caps. Where the file is silent, they are those of the class.
        for name in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if let Some(cap) = float(name)? {
                set(name, cap.into());
            }
        }
        // For classes that have bounds. llama.cpp's converter writes none for OLMoE.
        if let Some(bound) = float("attention.clamp_kqv")?.filter(|&v| v != 0.0) {
            set("clip_qkv", bound.into());
        }
        // For classes that have the flag. As in llama.cpp, their layers slide only where the file says which.
        if window.is_some() && self.metadata.contains_key(&key(PATTERN)) {
            set("use_sliding_window", true.into());
        }
        if let Some(sliding) = self.sliding_layers(&key(PATTERN), layers)? {
            let name = |s: bool| if s { "sliding_attention" } else { "full_attention" };
            set("layer_types", sliding.into_iter().map(name).collect());
        }
        let metadata = Metadata { gguf: self, family: family.name, layers, hidden, heads, head_dim, window };
        c.extend(self.rope(family, factors, head_dim, context)?);
        (family.fields)(&metadata, &mut c)?;
        metadata.refuse_other_attention(family)?;
        c.extend(self.special_tokens()?);
        // Absent means none here, not what the class of the configuration assumes.
        for name in ["bos_token_id", "eos_token_id", "pad_token_id"] {
            c.entry(name).or_insert(Value::Null);
        }
        Ok(c)
    }

    /// Which layers have a window, where the file says so: a truth value for each, or a period whose last layer has none
    /// (0: all have one).
    fn sliding_layers(&self, key: &str, layers: u64) -> Result<Option<Vec<bool>>, LoadError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Meta::Array(Array::Bool(sliding))) => Ok(Some(sliding.clone())),
            Some(Meta::Array(_)) => Err(self.bad(key, "a truth value for each layer, or a period")),
            Some(_) if layers > MAX_LAYERS => Ok(None), // refused with the configuration
            Some(_) => {
                let period = self.uint(key)?.unwrap_or(0);
                Ok(Some((0..layers).map(|i| period == 0 || i % period < period - 1).collect()))
            }
        }
    }

    fn rope(
        &self,
        family: &Family,
        factors: &RopeFactors,
        head_dim: u64,
        context: u64,
    ) -> Result<Map<String, Value>, LoadError> {
        let key = |name: &str| format!("{}.rope.{name}", family.name);
        let float = |name: &str| self.float(&key(name));
        let mut c = Map::new();
        if family.encoder {
            return Ok(c); // its positions are embedded
        }
        c.insert("rope_theta".to_owned(), float("freq_base")?.unwrap_or(10_000.0).into());
        if let Some(theta) = float("freq_base_swa")? {
            c.insert("rope_local_base_freq".to_owned(), theta.into());
        }
        let rotated = self.uint(&key("dimension_count"))?.filter(|&d| d > 0).unwrap_or(head_dim);
        let mut share = rotated as f64 / head_dim.max(1) as f64;
        if ((share * head_dim as f64) as u64) < rotated {
            share = share.next_up(); // the product is cut to a whole number
        }
        c.insert("partial_rotary_factor".to_owned(), share.into());
        let original = self.uint(&key("scaling.original_context_length"))?.filter(|&n| n > 0);
        let attention = float("scaling.attn_factor")?;
        let given = |pairs: &[(&str, Option<f64>)]| {
            let pairs = pairs.iter().filter_map(|(name, v)| Some(((*name).to_owned(), json!((*v)?))));
            pairs.collect::<Map<_, _>>()
        };
        let mut scaling = match self.text(&key("scaling.type"))? {
            Some("yarn") => {
                let factor = float("scaling.factor")?;
                // llama.cpp multiplies its attn_factor with the magnitude that belongs to the factor.
                let magnitude = factor.map_or(1.0, |f| 1.0 + 0.1 * f.max(1.0).ln());
                let given = given(&[
                    ("factor", factor),
                    ("attention_factor", attention.map(|a| a * magnitude)),
                    ("beta_fast", float("scaling.yarn_beta_fast")?),
                    ("beta_slow", float("scaling.yarn_beta_slow")?),
                ]);
                Some(("yarn", given))
            }
            None | Some("linear") => {
                let factor = match float("scaling.factor")? {
                    None => float("scale_linear")?,
                    factor => factor,
                };
                let factor = factor.filter(|&f| f != 0.0 && f != 1.0);
                factor.map(|factor| ("linear", given(&[("factor", Some(factor))])))
            }
            Some("none" | "longrope" | "") => None,
            Some(_) => return Err(self.bad(&key("scaling.type"), "none, linear, yarn or longrope")),
        };
        // Divisors of the single frequencies; llama3's scaling is stored as such.
        let lists = match (&factors.short_long, &factors.all) {
            (Some([short, long]), _) => Some((short, long, given(&[("attention_factor", attention)]))),
            (None, Some(all)) => {
                Some((all, all, given(&[("attention_factor", Some(attention.unwrap_or(1.0)))])))
            }
            (None, None) => None,
        };
        if let Some((short, long, mut given)) = lists {
            if scaling.is_some() {
                return Err(
                    self.bad(&key("scaling.type"), "absent beside tensors with factors of frequencies")
                );
            }
            given.insert("short_factor".to_owned(), json!(short));
            given.insert("long_factor".to_owned(), json!(long));
            scaling = Some(("longrope", given));
        }
        if let Some((kind, mut params)) = scaling {
            params.insert("rope_type".to_owned(), kind.into());
            let trained = original.unwrap_or(context);
            if kind != "linear" {
                params.insert("original_max_position_embeddings".to_owned(), trained.into());
            }
            if kind == "longrope" {
                // Some models state a default of their own, which goes before the one inside.
                c.insert("original_max_position_embeddings".to_owned(), trained.into());
            }
            c.insert("rope_scaling".to_owned(), Value::Object(params));
        }
        Ok(c)
    }
}

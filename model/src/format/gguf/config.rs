//! Metadata → `config.json`: every field then goes the way of all checkpoints.

use serde_json::{Map, Value, json};

use super::names::{FAMILIES, Family};
use super::{Array, Gguf, Value as Meta, field};
use crate::LoadError;

/// Values of `general.architecture` that are known.
pub const KNOWN: [&str; FAMILIES.len()] = {
    let mut names = [""; FAMILIES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = FAMILIES[i].name;
        i += 1;
    }
    names
};

/// Divisors of the frequencies that a file holds as tensors.
#[derive(Debug, Default)]
pub(super) struct RopeFactors {
    /// `rope_freqs.weight`: for all lengths.
    pub all: Option<Vec<f32>>,
    /// `rope_factors_short.weight`, `rope_factors_long.weight`.
    pub short_long: Option<[Vec<f32>; 2]>,
}

impl Gguf {
    /// The family that the file names.
    pub(super) fn family(&self) -> Result<&'static Family, LoadError> {
        const KEY: &str = "general.architecture";
        let name = self.text(KEY)?.unwrap_or_default();
        Family::of(name).ok_or_else(|| {
            field(&self.file, KEY, format!("{name:?}"), &format!("one of {}", KNOWN.join(", ")))
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
    pub(super) fn config(&self, factors: &RopeFactors) -> Result<Map<String, Value>, LoadError> {
        let family = self.family()?;
        let key = |name: &str| format!("{}.{name}", family.name);
        let uint = |name: &str| self.per_layer(&key(name));
        let float = |name: &str| self.float(&key(name));
        let needed = |name: &str| uint(name)?.ok_or_else(|| self.bad(&key(name), "a whole number"));
        if let Some(experts @ 1..) = uint("expert_count")? {
            let want = "0 (mixtures of experts are not supported yet)";
            return Err(field(&self.file, &key("expert_count"), experts.to_string(), want));
        }
        let window = uint("attention.sliding_window")?.filter(|&w| w > 0);
        let model_type = match family.model_type {
            "llama" if window.is_some() => "mistral",
            other => other,
        };
        let (hidden, heads) = (needed("embedding_length")?, needed("attention.head_count")?);
        let layers = needed("block_count")?;
        let head_dim = match uint("attention.key_length")? {
            Some(dim) => dim,
            None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                let want = format!("a multiple of attention.head_count ({heads})");
                return Err(field(&self.file, &key("embedding_length"), hidden.to_string(), &want));
            }
        };
        if let Some(values) = uint("attention.value_length")?.filter(|&v| v != head_dim) {
            let want = format!("{head_dim}, as attention.key_length");
            return Err(field(&self.file, &key("attention.value_length"), values.to_string(), &want));
        }
        let context = needed("context_length")?;
        let rows = |name: &str| self.tensor(name).and_then(|t| t.shape.first().copied());
        let has = |name: &str| self.tensor(name).is_some();
        let vocab = rows("token_embd.weight").map_or_else(|| uint("vocab_size"), |n| Ok(Some(n)))?;
        let Some(vocab) = vocab else { return Err(self.bad(&key("vocab_size"), "a whole number")) };
        let pooled = uint("pooling_type")?.is_some_and(|t| t > 0);
        let class = if pooled {
            family.class.replace("ForCausalLM", "Model")
        } else {
            family.class.replace("Llama", if model_type == "mistral" { "Mistral" } else { "Llama" })
        };
        let mut c = Map::new();
        let mut set = |name: &str, value: Value| {
            c.insert(name.to_owned(), value);
        };
        set("model_type", model_type.into());
        set("architectures", json!([class]));
        set("hidden_size", hidden.into());
        set("intermediate_size", needed("feed_forward_length")?.into());
        set("num_hidden_layers", layers.into());
        set("num_attention_heads", heads.into());
        set("num_key_value_heads", uint("attention.head_count_kv")?.unwrap_or(heads).into());
        set("head_dim", head_dim.into());
        set("vocab_size", vocab.into());
        set("max_position_embeddings", context.into());
        set("attention_bias", has("blk.0.attn_q.bias").into());
        set("mlp_bias", has("blk.0.ffn_down.bias").into());
        set("sliding_window", window.into());
        if let Some(eps) = float("attention.layer_norm_rms_epsilon")? {
            set("rms_norm_eps", eps.into());
        }
        if let Some(eps) = float("attention.layer_norm_epsilon")? {
            set("layer_norm_eps", eps.into());
        }
        match family.model_type {
            "bert" => set("type_vocab_size", rows("token_types.weight").unwrap_or(2).into()),
            _ => set("tie_word_embeddings", (!has("output.weight")).into()),
        }
        // As in llama.cpp, layers of these families slide only where the file says which.
        let pattern = self.metadata.contains_key(&key("attention.sliding_window_pattern"));
        if matches!(model_type, "qwen2" | "qwen3" | "smollm3") && window.is_some() && pattern {
            set("use_sliding_window", true.into());
        }
        if model_type.starts_with("gemma") {
            // llama.cpp: the largest of each generation divide by the channels per head of the residual stream.
            let largest = (family.model_type == "gemma2" && layers == 46) || layers == 62;
            let scalar = match float("attention.scale")? {
                Some(scale) => (scale * scale).recip(),
                None => (if largest { hidden / heads.max(1) } else { head_dim }) as f64,
            };
            set("query_pre_attn_scalar", scalar.into());
            for name in ["attn_logit_softcapping", "final_logit_softcapping"] {
                set(name, float(name)?.into());
            }
            if let Some(Meta::Uint(pattern)) = self.metadata.get(&key("attention.sliding_window_pattern")) {
                set("sliding_window_pattern", (*pattern).into());
            }
        }
        if let Some(Meta::Array(Array::Bool(sliding))) =
            self.metadata.get(&key("attention.sliding_window_pattern"))
        {
            let name = |&s: &bool| if s { "sliding_attention" } else { "full_attention" };
            set("layer_types", sliding.iter().map(name).collect());
        }
        if model_type == "granite" {
            for (name, key) in [
                ("attention_multiplier", "attention.scale"),
                ("embedding_multiplier", "embedding_scale"),
                ("residual_multiplier", "residual_scale"),
                ("logits_scaling", "logit_scale"),
            ] {
                if let Some(v) = float(key)? {
                    set(name, v.into());
                }
            }
        }
        if model_type == "cohere" {
            set("logit_scale", float("logit_scale")?.into());
            set("use_qk_norm", has("blk.0.attn_q_norm.weight").into());
        }
        if model_type == "smollm3" {
            set("no_rope_layer_interval", 4.into());
        }
        let rope = self.rope(family, factors, head_dim, context)?;
        c.extend(rope);
        c.extend(self.special_tokens()?);
        // Absent means none here, not what the class of the configuration assumes.
        for name in ["bos_token_id", "eos_token_id", "pad_token_id"] {
            c.entry(name).or_insert(Value::Null);
        }
        Ok(c)
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
        if let Some(theta) = float("freq_base")? {
            c.insert("rope_theta".to_owned(), theta.into());
        }
        if let Some(theta) = float("freq_base_swa")? {
            c.insert("rope_local_base_freq".to_owned(), theta.into());
        }
        if let Some(rotated) = self.uint(&key("dimension_count"))?.filter(|&d| d > 0) {
            c.insert("partial_rotary_factor".to_owned(), (rotated as f64 / head_dim.max(1) as f64).into());
        }
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
            Some("linear") => Some(("linear", given(&[("factor", float("scaling.factor")?)]))),
            None => match float("scale_linear")? {
                Some(factor) if factor != 1.0 => Some(("linear", given(&[("factor", Some(factor))]))),
                _ => None,
            },
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

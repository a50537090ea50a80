//! `generation_config.json`: the checkpoint's own defaults.

use std::collections::HashMap;

use serde_json::Value;

use crate::checkpoint::format::json;
use crate::checkpoint::source::{ByteSource, read_whole};
use crate::error::LoadError;
use crate::network::config::Config;
use crate::run::sampler::Sampling;

/// How a checkpoint wants to be sampled, and where it stops.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Sampling. Greedy unless the file says `do_sample`; what it says of penalties and rules holds either way, as in
    /// transformers.
    pub sampling: Sampling,
    /// Whether the file says that tokens are sampled; `None` if it is silent or not there.
    pub do_sample: Option<bool>,
    /// Tokens that end a text.
    pub eos_token_ids: Vec<u32>,
    /// Texts that end a text.
    pub stop_strings: Vec<String>,
    /// New tokens at most, if the file says so.
    pub max_new_tokens: Option<usize>,
    /// Tokens at most with those of the prompt, if the file says so.
    pub max_length: Option<usize>,
    /// What the file asks for and is not done.
    pub notes: Vec<String>,
}

const FILE: &str = "generation_config.json";

/// Bytes of the file at most.
const MAX_BYTES: u64 = 16 << 20;

/// What the file may ask for and girih does not do, with the values that ask for nothing.
const NOT_DONE: [(&str, &[&str]); 13] = [
    ("num_beams", &["1"]),
    ("num_beam_groups", &["1"]),
    ("num_return_sequences", &["1"]),
    ("penalty_alpha", &["0", "0.0"]),
    ("diversity_penalty", &["0", "0.0"]),
    ("dola_layers", &[]),
    ("guidance_scale", &["1", "1.0"]),
    ("watermarking_config", &[]),
    ("constraints", &[]),
    ("force_words_ids", &[]),
    ("token_healing", &["false"]),
    ("max_time", &[]),
    ("remove_invalid_values", &["false"]),
];

/// A field of the file, with the form it must have.
struct Fields(Value);

impl Fields {
    fn bad(field: &str, got: &Value, want: &str) -> LoadError {
        let got = json::excerpt(got);
        LoadError::Field { file: FILE.into(), field: field.into(), got, want: want.into() }
    }

    /// A field that is there and not null.
    fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|v| !v.is_null())
    }

    fn read<T>(
        &self,
        field: &str,
        want: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, LoadError> {
        self.get(field).map(|v| read(v).ok_or_else(|| Self::bad(field, v, want))).transpose()
    }

    fn number(&self, field: &str) -> Result<Option<f32>, LoadError> {
        Ok(self.read(field, "a number", Value::as_f64)?.map(|v| v as f32))
    }

    /// A count. Some files write -1 or 0 where they mean none.
    fn count(&self, field: &str) -> Result<Option<usize>, LoadError> {
        let found = self.read(field, "a whole number", integer)?;
        Ok(found.and_then(|n| usize::try_from(n).ok()))
    }

    /// A token, or a list of them. Some files write -1 for none.
    fn tokens(&self, field: &str) -> Result<Option<Vec<u32>>, LoadError> {
        self.read(field, "a token id or a list of them", tokens)
    }

    fn sequences(&self, field: &str) -> Result<Vec<Vec<u32>>, LoadError> {
        let read = |v: &Value| v.as_array()?.iter().map(sequence).collect::<Option<Vec<_>>>();
        Ok(self.read(field, "a list of lists of token ids", read)?.unwrap_or_default())
    }
}

/// A whole number; `50.0` is one.
fn integer(v: &Value) -> Option<i64> {
    v.as_i64().or_else(|| v.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 1e15).map(|f| f as i64))
}

fn token(v: &Value) -> Option<u32> {
    v.as_u64().and_then(|id| u32::try_from(id).ok())
}

fn tokens(v: &Value) -> Option<Vec<u32>> {
    let list = v.as_array().map_or(std::slice::from_ref(v), Vec::as_slice);
    list.iter().filter(|v| v.as_i64().is_none_or(|id| id >= 0)).map(token).collect()
}

fn sequence(v: &Value) -> Option<Vec<u32>> {
    v.as_array()?.iter().map(token).collect::<Option<Vec<_>>>().filter(|ids| !ids.is_empty())
}

/// Sequences and their biases: a list of pairs. The last one counts where a sequence occurs twice.
fn biases(v: &Value) -> Option<Vec<(Vec<u32>, f32)>> {
    let mut found: Vec<(Vec<u32>, f32)> = Vec::new();
    let mut places: HashMap<Vec<u32>, usize> = HashMap::new();
    for pair in v.as_array()? {
        let [ids, bias] = pair.as_array()?.as_slice() else { return None };
        let (ids, bias) = (sequence(ids)?, bias.as_f64()? as f32);
        if let Some(&place) = places.get(&ids) {
            found[place].1 = bias;
        } else {
            places.insert(ids.clone(), found.len());
            found.push((ids, bias));
        }
    }
    Some(found)
}

fn texts(v: &Value) -> Option<Vec<String>> {
    let list = v.as_array().map_or(std::slice::from_ref(v), Vec::as_slice);
    list.iter().map(|v| v.as_str().map(str::to_owned)).collect()
}

fn start_and_factor(v: &Value) -> Option<(usize, f32)> {
    let [start, factor] = v.as_array()?.as_slice() else { return None };
    Some((usize::try_from(integer(start)?).ok()?, factor.as_f64()? as f32))
}

/// What conversations are sampled with where the checkpoint says nothing: the defaults of llama.cpp's chat. The likeliest
/// token each time makes small models repeat themselves.
fn of_conversations(sampling: &Sampling) -> Sampling {
    let none = Sampling::default();
    Sampling {
        temperature: 0.8,
        top_k: if sampling.top_k == none.top_k { 40 } else { sampling.top_k },
        top_p: if sampling.top_p == none.top_p { 0.95 } else { sampling.top_p },
        min_p: if sampling.min_p == none.min_p { 0.05 } else { sampling.min_p },
        ..sampling.clone()
    }
}

impl GenerationConfig {
    /// How the answers of a conversation are sampled: as [`GenerationConfig::sampling`] if the file says whether to
    /// sample. Where it is silent or not there, as chat programs do: temperature 0.8, top-k 40, top-p 0.95, min-p 0.05,
    /// except for what the file says of these without saying that it samples; with its penalties and rules.
    pub fn chat_sampling(&self) -> Sampling {
        if self.do_sample.is_some() { self.sampling.clone() } else { of_conversations(&self.sampling) }
    }

    /// Reads the file, with the defaults of transformers (temperature 1 and top-k 50 if it samples); what it leaves out
    /// comes from the model's configuration.
    ///
    /// # Errors
    /// A file that is not JSON, values out of range.
    pub async fn load(source: &dyn ByteSource, config: &Config) -> Result<Self, LoadError> {
        match read_whole(source, FILE, MAX_BYTES).await? {
            Some(bytes) => Self::parse(&bytes, config),
            None => Ok(Self { eos_token_ids: config.eos_token_ids.clone(), ..Self::default() }),
        }
    }

    /// As [`GenerationConfig::load`], from the bytes of the file.
    ///
    /// # Errors
    /// As [`GenerationConfig::load`].
    pub fn parse(bytes: &[u8], config: &Config) -> Result<Self, LoadError> {
        let value = json::parse(FILE, bytes)?;
        if !value.is_object() {
            return Err(Fields::bad("top level", &value, "an object"));
        }
        let f = Fields(value);
        let do_sample = f.read("do_sample", "true or false", Value::as_bool)?;
        let mut sampling = sampling(&f, do_sample == Some(true))?;
        let mut notes = notes(&f);
        if do_sample != Some(true)
            && let Err(error) = sampling.validate()
        {
            // What shapes a distribution has no effect here, so it cannot be wrong enough to refuse the model.
            sampling = penalties(sampling);
            notes.push(format!("{FILE}: {error}; it is left out, since the file does not sample"));
        }
        sampling.validate().map_err(|e| Fields::bad("sampling", &e.to_string().into(), "values in range"))?;
        Ok(Self {
            sampling,
            do_sample,
            eos_token_ids: f.tokens("eos_token_id")?.unwrap_or_else(|| config.eos_token_ids.clone()),
            stop_strings: f.read("stop_strings", "a text or a list of texts", texts)?.unwrap_or_default(),
            max_new_tokens: f.count("max_new_tokens")?.filter(|&n| n > 0),
            max_length: f.count("max_length")?.filter(|&n| n > 0),
            notes,
        })
    }
}

fn sampling(f: &Fields, sampled: bool) -> Result<Sampling, LoadError> {
    let none = Sampling::default();
    let number = |field: &str, default: f32| Ok::<_, LoadError>(f.number(field)?.unwrap_or(default));
    let mut s = Sampling {
        top_k: f
            .count("top_k")?
            .map_or(if sampled { 50 } else { 0 }, |k| u32::try_from(k).unwrap_or(u32::MAX)),
        top_p: number("top_p", none.top_p)?,
        min_p: number("min_p", none.min_p)?,
        top_h: number("top_h", none.top_h)?,
        typical_p: number("typical_p", none.typical_p)?,
        epsilon_cutoff: number("epsilon_cutoff", none.epsilon_cutoff)?,
        eta_cutoff: number("eta_cutoff", none.eta_cutoff)?,
        repetition_penalty: number("repetition_penalty", none.repetition_penalty)?,
        ..none
    };
    // Without sampling the temperature of a file has no meaning.
    s.temperature = if sampled { number("temperature", 1.0)? } else { 0.0 };
    let rules = &mut s.rules;
    rules.sequence_bias =
        f.read("sequence_bias", "a list of pairs of token ids and a number", biases)?.unwrap_or_default();
    rules.prompt_repetition_penalty = number("encoder_repetition_penalty", 1.0)?;
    rules.no_repeat_ngram = f.count("no_repeat_ngram_size")?.unwrap_or(0);
    rules.no_repeat_prompt_ngram = f.count("encoder_no_repeat_ngram_size")?.unwrap_or(0);
    rules.bad_words = f.sequences("bad_words_ids")?;
    rules.min_length = f.count("min_length")?.unwrap_or(0);
    rules.min_new_tokens = f.count("min_new_tokens")?.unwrap_or(0);
    rules.forced_first = f.tokens("forced_bos_token_id")?.and_then(|ids| ids.first().copied());
    rules.forced_last = f.tokens("forced_eos_token_id")?.unwrap_or_default();
    let decay = "exponential_decay_length_penalty";
    rules.length_decay = f.read(decay, "a number of tokens and a factor", start_and_factor)?;
    rules.suppress = f.tokens("suppress_tokens")?.unwrap_or_default();
    rules.suppress_first = f.tokens("begin_suppress_tokens")?.unwrap_or_default();
    Ok(s)
}

/// The part of it that holds without sampling.
fn penalties(sampling: Sampling) -> Sampling {
    Sampling { repetition_penalty: sampling.repetition_penalty, rules: sampling.rules, ..Sampling::default() }
}

fn notes(f: &Fields) -> Vec<String> {
    let asked = NOT_DONE.iter().filter_map(|(field, nothing)| {
        let value = f.get(field)?;
        let text: String = value.to_string().chars().take(60).collect();
        let empty = value.as_array().is_some_and(Vec::is_empty);
        (!empty && !nothing.contains(&text.as_str()))
            .then(|| format!("{FILE} asks for {field} = {text}, which is not done"))
    });
    asked.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let text = r#"{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 8, "hidden_size": 4,
            "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
            "max_position_embeddings": 8, "rms_norm_eps": 1e-5, "eos_token_id": 7}"#;
        Config::parse(text.as_bytes()).expect("a configuration")
    }

    fn parse(text: &str) -> Result<GenerationConfig, LoadError> {
        GenerationConfig::parse(text.as_bytes(), &config())
    }

    /// Penalties and rules do not depend on sampling; what shapes a distribution is kept for those who sample.
    #[test]
    fn penalties_hold_without_sampling() {
        let c = parse(
            r#"{"repetition_penalty": 1.8, "no_repeat_ngram_size": 3, "top_p": 0.9, "temperature": 0.6,
            "suppress_tokens": [1, 2], "bad_words_ids": [[3, 4], [5]], "forced_eos_token_id": 7,
            "min_new_tokens": 2, "sequence_bias": [[[1, 2], -1.5], [[1, 2], 0.5]],
            "exponential_decay_length_penalty": [5, 1.2], "stop_strings": "end", "max_new_tokens": 77}"#,
        )
        .expect("parses");
        let s = &c.sampling;
        assert!(!s.is_argmax() && !s.fits_candidates(64));
        assert_eq!((s.temperature, s.top_k, s.top_p, s.repetition_penalty), (0.0, 0, 0.9, 1.8));
        let r = &s.rules;
        assert_eq!((r.no_repeat_ngram, r.min_new_tokens, r.length_decay), (3, 2, Some((5, 1.2))));
        assert_eq!((&r.suppress[..], &r.forced_last[..]), (&[1, 2][..], &[7][..]));
        assert_eq!(r.bad_words, [vec![3, 4], vec![5]]);
        assert_eq!(r.sequence_bias, [(vec![1, 2], 0.5)]);
        assert_eq!((c.do_sample, c.max_new_tokens), (None, Some(77)));
        assert_eq!((c.stop_strings, c.notes), (vec!["end".to_owned()], vec![]));
        let sampled = parse(r#"{"do_sample": true}"#).expect("parses").sampling;
        assert_eq!((sampled.temperature, sampled.top_k), (1.0, 50));
        assert!(parse(r#"{"do_sample": false, "temperature": 0.7}"#).expect("parses").sampling.is_argmax());
    }

    #[test]
    fn ends() {
        for (text, want) in [
            ("{}", &[7][..]),
            (r#"{"eos_token_id": null}"#, &[7]),
            (r#"{"eos_token_id": -1}"#, &[]),
            (r#"{"eos_token_id": [3, -1, 4]}"#, &[3, 4]),
        ] {
            assert_eq!(parse(text).expect(text).eos_token_ids, want, "{text}");
        }
    }

    /// What is not done is said, and what cannot be meant is an error.
    #[test]
    fn notes_and_errors() {
        let c = parse(
            r#"{"num_beams": 4, "guidance_scale": 1.5, "num_return_sequences": 1, "penalty_alpha": 0.0,
            "constraints": [], "token_healing": false, "dola_layers": null}"#,
        );
        let notes = c.expect("parses").notes;
        assert_eq!(notes.len(), 2, "{notes:?}");
        let lax = parse(r#"{"top_p": 0, "repetition_penalty": 1.5}"#).expect("does not sample");
        assert_eq!((lax.sampling.top_p, lax.sampling.repetition_penalty, lax.notes.len()), (1.0, 1.5, 1));
        assert!(notes[0].contains("num_beams = 4") && notes[1].contains("guidance_scale = 1.5"));
        for (bad, field) in [
            (r#"{"eos_token_id": "x"}"#, "eos_token_id"),
            (r#"{"do_sample": "yes"}"#, "do_sample"),
            (r#"{"top_k": 1.5}"#, "top_k"),
            (r#"{"repetition_penalty": 0}"#, "sampling"),
            (r#"{"typical_p": -1, "do_sample": true}"#, "sampling"),
            (r#"{"bad_words_ids": [1]}"#, "bad_words_ids"),
            (r#"{"bad_words_ids": [[]]}"#, "bad_words_ids"),
            (r#"{"sequence_bias": [[[1]]]}"#, "sequence_bias"),
            (r#"{"exponential_decay_length_penalty": 3}"#, "exponential_decay_length_penalty"),
            ("[]", "top level"),
        ] {
            let error = parse(bad).expect_err(bad);
            assert!(matches!(&error, LoadError::Field { field: f, .. } if f == field), "{bad}: {error}");
        }
    }

    #[test]
    fn conversations_are_sampled_where_the_file_is_silent() {
        let chat = |text: &str| parse(text).expect("a configuration").chat_sampling();
        let silent = chat(r#"{"repetition_penalty": 1.1}"#);
        assert_eq!((silent.temperature, silent.top_k, silent.top_p, silent.min_p), (0.8, 40, 0.95, 0.05));
        assert_eq!(silent.repetition_penalty, 1.1);
        let half = chat(r#"{"top_p": 0.9, "top_k": 20}"#);
        assert_eq!((half.temperature, half.top_k, half.top_p, half.min_p), (0.8, 20, 0.9, 0.05));
        assert_eq!(GenerationConfig::default().chat_sampling().temperature, 0.8);
        assert_eq!(chat(r#"{"do_sample": false}"#).temperature, 0.0);
        let own = chat(r#"{"do_sample": true, "temperature": 0.6}"#);
        assert_eq!((own.temperature, own.top_k, own.min_p), (0.6, 50, 0.0));
    }
}

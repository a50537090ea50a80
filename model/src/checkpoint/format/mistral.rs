//! Mistral's own files (`params.json`, `consolidated.safetensors`), shown as a checkpoint folder.
//!
//! Names and the order of rows are those of Mistral's reference code: rotary embeddings turn neighbouring channels, so
//! that the rows of queries and keys are put into the order of half-split ones when they are read.

use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::safetensors::{INDEX, SINGLE};
use super::{json as python, paired};
use crate::checkpoint::source::{BoxFuture, ByteSource, read_whole};
use crate::checkpoint::table::{TensorInfo, TensorTable};
use crate::{LoadError, MisShaped};

/// The weights in one file.
pub(super) const CONSOLIDATED: &str = "consolidated.safetensors";
/// Names of the files of weights in several.
const CONSOLIDATED_INDEX: &str = "consolidated.safetensors.index.json";
const PARAMS: &str = "params.json";
const CONFIG: &str = "config.json";
/// Bytes of a configuration at most.
const MAX_TEXT: u64 = 1 << 20;

/// Heads of a model, as its configuration says.
#[derive(Clone, Debug)]
pub struct Heads {
    /// `model_type`.
    pub model_type: String,
    /// Query heads.
    pub query: u32,
    /// Key and value heads.
    pub key: u32,
    /// Channels of a head.
    pub dim: u32,
}

/// A folder with Mistral's files alone is shown as a checkpoint of transformers; one that has both kinds, and any
/// other, is left as it is. `heads` reads them from a `config.json`.
///
/// # Errors
/// Headers and parameters that are broken or cannot be honoured.
pub async fn checkpoint(
    source: Arc<dyn ByteSource>,
    heads: fn(&[u8]) -> Result<Heads, LoadError>,
) -> Result<Arc<dyn ByteSource>, LoadError> {
    if source.tensors().is_some()
        || source.size(SINGLE).await?.is_some()
        || source.size(INDEX).await?.is_some()
    {
        return Ok(source);
    }
    let table = if source.size(CONSOLIDATED).await?.is_some() {
        TensorTable::open_file(&*source, CONSOLIDATED).await?
    } else if source.size(CONSOLIDATED_INDEX).await?.is_some() {
        TensorTable::open_index(&*source, CONSOLIDATED_INDEX).await?
    } else {
        return Ok(source);
    };
    // Some publishers put the weights of transformers under this name.
    if table.get("tok_embeddings.weight").is_none() {
        return Ok(Arc::new(Shown { inner: source, config: None, table, paired: Vec::new() }));
    }
    let stated = read_whole(&*source, CONFIG, MAX_TEXT).await?;
    let config = if stated.is_some() {
        None
    } else {
        let params = read_whole(&*source, PARAMS, MAX_TEXT).await?;
        let params = params.ok_or_else(|| LoadError::NoFile { file: PARAMS.to_owned() })?;
        let tied = table.get("output.weight").is_none();
        Some(config(&params, tied)?.to_string().into_bytes())
    };
    let heads = heads(config.as_deref().or(stated.as_deref()).unwrap_or_default())?;
    if !matches!(heads.model_type.as_str(), "mistral" | "llama") {
        let (got, want) = (heads.model_type, format!("mistral or llama beside {CONSOLIDATED}"));
        return Err(LoadError::Config { field: "model_type".to_owned(), got, want });
    }
    let (mut infos, mut paired) = (Vec::new(), Vec::new());
    for info in table.iter() {
        let name = renamed(&info.name).unwrap_or_else(|| info.name.clone());
        let paired_heads = match name.rsplit_once(".self_attn.").map(|(_, rest)| rest) {
            Some("q_proj.weight") => Some(heads.query),
            Some("k_proj.weight") => Some(heads.key),
            _ => None,
        };
        if let Some(count) = paired_heads {
            paired.push(Paired::of(info, count, heads.dim)?);
        }
        infos.push(TensorInfo { name, ..info.clone() });
    }
    Ok(Arc::new(Shown { inner: source, config, table: TensorTable::new(infos)?, paired }))
}

/// A matrix whose rows are put into another order.
#[derive(Debug)]
struct Paired {
    file: String,
    range: Range<u64>,
    head: u64,
    row: u64,
}

impl Paired {
    fn of(info: &TensorInfo, heads: u32, head_dim: u32) -> Result<Self, LoadError> {
        let (heads, head_dim) = (u64::from(heads), u64::from(head_dim));
        let bytes = info.range.end - info.range.start;
        match *info.shape.as_slice() {
            [rows, columns] if rows == heads * head_dim && head_dim.is_multiple_of(2) && columns > 0 => {
                let row = bytes / rows;
                Ok(Self { file: info.file.clone(), range: info.range.clone(), head: row * head_dim, row })
            }
            _ => Err(LoadError::Tensors {
                missing: Vec::new(),
                mis_shaped: vec![MisShaped {
                    tensor: info.name.clone(),
                    got: info.shape.clone(),
                    want: vec![heads * head_dim, info.shape.get(1).copied().unwrap_or(0)],
                }],
                unused: Vec::new(),
            }),
        }
    }
}

/// The name that transformers gives a tensor; `None` for what is no part of the language model.
fn renamed(name: &str) -> Option<String> {
    let top = match name {
        "tok_embeddings.weight" => "model.embed_tokens.weight",
        "norm.weight" => "model.norm.weight",
        "output.weight" => "lm_head.weight",
        _ => {
            let (layer, rest) = name.strip_prefix("layers.")?.split_once('.')?;
            let rest = match rest {
                "attention_norm.weight" => "input_layernorm.weight",
                "ffn_norm.weight" => "post_attention_layernorm.weight",
                "attention.wq.weight" => "self_attn.q_proj.weight",
                "attention.wk.weight" => "self_attn.k_proj.weight",
                "attention.wv.weight" => "self_attn.v_proj.weight",
                "attention.wo.weight" => "self_attn.o_proj.weight",
                "feed_forward.w1.weight" => "mlp.gate_proj.weight",
                "feed_forward.w2.weight" => "mlp.down_proj.weight",
                "feed_forward.w3.weight" => "mlp.up_proj.weight",
                _ => return None,
            };
            return Some(format!("model.layers.{layer}.{rest}"));
        }
    };
    Some(top.to_owned())
}

/// The `config.json` that says the same as `params.json`. `tied`: there is no head of its own.
fn config(params: &[u8], tied: bool) -> Result<Value, LoadError> {
    /// Fields that mean the same under another name.
    const NAMES: [(&str, &str); 10] = [
        ("dim", "hidden_size"),
        ("n_layers", "num_hidden_layers"),
        ("hidden_dim", "intermediate_size"),
        ("n_heads", "num_attention_heads"),
        ("n_kv_heads", "num_key_value_heads"),
        ("head_dim", "head_dim"),
        ("norm_eps", "rms_norm_eps"),
        ("vocab_size", "vocab_size"),
        ("rope_theta", "rope_theta"),
        ("sliding_window", "sliding_window"),
    ];
    /// Fields that do not change what is computed, or cannot in what is loaded: images are no part of it.
    const IDLE: [&str; 6] = [
        "max_batch_size",
        "model_type",
        "vision_encoder",
        "multimodal",
        "max_seq_len",
        "max_position_embeddings",
    ];
    let bad = |field: &str, got: &Value, want: &str| LoadError::Field {
        file: PARAMS.to_owned(),
        field: field.to_owned(),
        got: python::excerpt(got),
        want: want.to_owned(),
    };
    let value = python::parse(PARAMS, params)?;
    let Value::Object(params) = value else { return Err(bad("top level", &value, "an object")) };
    let mut c = Map::new();
    c.insert("model_type".to_owned(), "mistral".into());
    c.insert("architectures".to_owned(), json!(["MistralForCausalLM"]));
    // What the converter of transformers assumes.
    c.insert("sliding_window".to_owned(), Value::Null);
    c.insert("max_position_embeddings".to_owned(), 32_768.into());
    for name in ["max_seq_len", "max_position_embeddings"] {
        if let Some(length) = params.get(name).filter(|v| !v.is_null()) {
            c.insert("max_position_embeddings".to_owned(), length.clone());
        }
    }
    for (name, value) in &params {
        if value.is_null() || IDLE.contains(&name.as_str()) {
            continue;
        }
        if let Some((_, to)) = NAMES.iter().find(|(from, _)| from == name) {
            // A window may be written as a text.
            let text = value.as_str().filter(|_| name == "sliding_window");
            let number = text.and_then(|text| text.parse::<u32>().ok()).map(Value::from);
            c.insert((*to).to_owned(), number.unwrap_or_else(|| value.clone()));
            continue;
        }
        match name.as_str() {
            "use_biases" if value == &Value::Bool(false) => {}
            "causal" if value == &Value::Bool(true) => {}
            "tied_embeddings" if value.is_boolean() => {}
            _ => return Err(bad(name, value, "absent (it is not supported in Mistral's own files)")),
        }
    }
    for (from, to) in NAMES {
        // The class of the configuration has other defaults than Mistral's code, which has none.
        let optional = match from {
            "n_kv_heads" | "head_dim" | "sliding_window" => true,
            // The first models, those with windows, were made before the field was.
            "rope_theta" => c.get("sliding_window").is_some_and(|w| !w.is_null()),
            _ => false,
        };
        if !optional && !c.contains_key(to) {
            return Err(bad(from, &Value::Null, "a number"));
        }
    }
    if !c.contains_key("num_key_value_heads") {
        c.insert("num_key_value_heads".to_owned(), Value::Null);
    }
    c.insert("tie_word_embeddings".to_owned(), tied.into());
    Ok(Value::Object(c))
}

/// The folder as transformers would have written it.
#[derive(Debug)]
struct Shown {
    inner: Arc<dyn ByteSource>,
    /// `config.json`, where the folder has none.
    config: Option<Vec<u8>>,
    table: TensorTable,
    paired: Vec<Paired>,
}

impl Shown {
    async fn bytes(&self, file: &str, range: Range<u64>) -> Result<Vec<u8>, LoadError> {
        let inside = |p: &&Paired| p.file == file && p.range.start <= range.start && range.end <= p.range.end;
        // Tensors are read one at a time; any other range is given as it lies in the file.
        let Some(p) = self.paired.iter().find(inside) else { return self.inner.read(file, range).await };
        if range.is_empty() {
            return Ok(Vec::new());
        }
        // Whole heads.
        let (from, to) = (range.start - p.range.start, range.end - p.range.start);
        let start = p.range.start + from / p.head * p.head;
        let end = p.range.start + to.next_multiple_of(p.head);
        let mut bytes = self.inner.read(file, start..end).await?;
        paired::undo(&mut bytes, p.head as usize, p.row as usize);
        bytes.truncate((range.end - start) as usize);
        bytes.drain(..(range.start - start) as usize);
        Ok(bytes)
    }
}

impl ByteSource for Shown {
    fn read<'a>(&'a self, file: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Vec<u8>, LoadError>> {
        Box::pin(async move {
            let Some(text) = self.config.as_ref().filter(|_| file == CONFIG) else {
                return self.bytes(file, range).await;
            };
            let inside = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
            let part = inside.and_then(|(a, b)| text.get(a..b)).map(<[u8]>::to_vec);
            let (got, want) = (text.len() as u64, range.end);
            part.ok_or_else(|| LoadError::Truncated { file: file.to_owned(), got, want })
        })
    }

    fn size<'a>(&'a self, file: &'a str) -> BoxFuture<'a, Result<Option<u64>, LoadError>> {
        match self.config.as_ref().filter(|_| file == CONFIG) {
            Some(text) => Box::pin(std::future::ready(Ok(Some(text.len() as u64)))),
            None => self.inner.size(file),
        }
    }

    fn list(&self) -> Option<Vec<String>> {
        let mut files = self.inner.list()?;
        if self.config.is_some() {
            files.push(CONFIG.to_owned());
        }
        Some(files)
    }

    fn tensors(&self) -> Option<&TensorTable> {
        Some(&self.table)
    }
}

//! The text part of multimodal configurations.

use serde_json::{Map, Value};

use super::class::Named;
use super::fields::bad;
use crate::LoadError;

/// Multimodal models that use a known architecture in another way: the tokens of a prompt see each other in both
/// directions.
const OTHER_MASKS: [&str; 2] = ["colpali", "paligemma"];

/// Fields that stand at the top, where the text part has none of its own.
const SHARED: [&str; 10] = [
    "architectures",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "torch_dtype",
    "dtype",
    "vocab_size",
    "quantization_config",
    "compression_config",
];

/// The configuration of the language model: `text_config` where there is one, with what stands above it. Those of other
/// multimodal models than the classes name load too if their text part names an architecture that is known.
pub(super) fn text_part(
    mut top: Map<String, Value>,
    known: &[Named],
) -> Result<Map<String, Value>, LoadError> {
    let name = top.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if OTHER_MASKS.contains(&name.as_str()) {
        let want = "another model (attention in both directions is not supported yet)";
        return Err(bad("model_type", top.get("model_type"), want));
    }
    let mut wrappers = known.iter().flat_map(|named| named.class.wrappers.iter().map(move |w| (named, w)));
    let wrapper = wrappers.find(|(_, w)| w.model_type == name);
    let mut raw = match top.remove("text_config") {
        Some(Value::Object(nested)) => nested,
        // Other architectures have the field too, empty.
        None | Some(Value::Null) if wrapper.is_none() => return Ok(top),
        other => return Err(bad("text_config", other.as_ref(), "an object")),
    };
    let silent = |raw: &Map<String, Value>, name: &str| raw.get(name).is_none_or(Value::is_null);
    for name in SHARED {
        if let (true, Some(v)) = (silent(&raw, name), top.remove(name)) {
            raw.insert(name.to_owned(), v);
        }
    }
    if silent(&raw, "model_type") {
        let text = wrapper.map_or(name, |(text, _)| text.model_type.to_owned());
        raw.insert("model_type".to_owned(), text.into());
    }
    if let (true, Some((_, wrapper))) = (silent(&raw, "tie_word_embeddings"), wrapper) {
        raw.insert("tie_word_embeddings".to_owned(), wrapper.tie.into());
    }
    Ok(raw)
}

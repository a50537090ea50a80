//! `llama`: SentencePiece BPE.

use serde_json::{Value, json};

use super::super::{Array, Gguf, Value as Meta, field};
use super::PREFIX;
use super::special::{UNKNOWN, UNUSED, Vocabulary};
use crate::LoadError;

impl Gguf {
    /// Scores of all tokens; some files have whole numbers.
    fn scores(&self, v: &Vocabulary<'_>) -> Result<Vec<f64>, LoadError> {
        let key = format!("{PREFIX}scores");
        let scores = match self.metadata.get(&key) {
            Some(Meta::Array(Array::Int(list))) => list.iter().map(|&s| s as f64).collect(),
            Some(_) => self.floats(&key)?.unwrap_or_default().to_vec(),
            None => return Err(self.bad(&key, "a list of numbers")),
        };
        if scores.len() < v.tokens.len() {
            let want = format!("{} elements, as tokenizer.ggml.tokens", v.tokens.len());
            return Err(field(&self.file, &key, scores.len().to_string(), &want));
        }
        if let Some(score) = scores.iter().find(|s| !s.is_finite()) {
            return Err(field(&self.file, &key, score.to_string(), "finite numbers"));
        }
        Ok(scores)
    }

    pub(super) fn sentence_piece(&self, v: &Vocabulary<'_>) -> Result<Value, LoadError> {
        let scores = self.scores(v)?;
        let unknown = match v.kinds.iter().position(|&kind| kind == UNKNOWN) {
            Some(id) => Some(id as u64),
            None => self.special("unknown", v.tokens)?,
        };
        let unused: Vec<usize> = (0..v.tokens.len()).filter(|&id| v.kinds[id] == UNUSED).collect();
        let model = json!({"type": "Pieces", "tokens": v.tokens, "scores": scores[..v.tokens.len()],
            "unknown": unknown, "unused": unused});
        let space = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let mut normalizers = vec![space];
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if self.flag(&format!("{PREFIX}add_space_prefix"))?.unwrap_or(true) {
            normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        Ok(json!({"normalizer": {"type": "Sequence", "normalizers": normalizers}, "pre_tokenizer": null,
            "decoder": {"type": "Sequence", "decoders": decoders}, "model": model}))
    }
}

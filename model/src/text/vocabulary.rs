//! What stands behind the pieces of a text: a model of the crate `tokenizers`, or one that it does not have.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::models::{ModelWrapper, TrainerWrapper};
use tokenizers::{Model, Token};

use crate::text::pieces::Pieces;

/// The `model` of a `tokenizer.json`. Beside the types of the crate `tokenizers` there are two that vocabularies of GGUF
/// files need:
///
/// - `Pieces`: `tokens`, `scores`, `unknown`, `unused`: SentencePiece's BPE without a list of merges.
/// - `Spelt`: a `model` of another type with `spellings` of ids that it does not know, for decoding.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Vocabulary {
    /// As the crate has it, with spellings of further ids.
    Known {
        /// The crate's.
        model: Box<ModelWrapper>,
        /// Spellings that decoding knows and encoding does not.
        spellings: BTreeMap<u32, String>,
    },
    /// SentencePiece's BPE.
    Pieces(Pieces),
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = serde_json::Value::deserialize(deserializer)?;
        match value["type"].as_str() {
            Some("Pieces") => Pieces::deserialize(value).map(Self::Pieces).map_err(D::Error::custom),
            Some("Spelt") => {
                let spellings: Vec<(u32, String)> =
                    Deserialize::deserialize(value["spellings"].take()).map_err(D::Error::custom)?;
                let model = ModelWrapper::deserialize(value["model"].take()).map_err(D::Error::custom)?;
                let model = Box::new(model);
                Ok(Self::Known { model, spellings: spellings.into_iter().collect() })
            }
            _ => {
                let model = Box::new(ModelWrapper::deserialize(value).map_err(D::Error::custom)?);
                Ok(Self::Known { model, spellings: BTreeMap::new() })
            }
        }
    }
}

impl Model for Vocabulary {
    type Trainer = TrainerWrapper;

    fn tokenize(&self, sequence: &str) -> tokenizers::Result<Vec<Token>> {
        match self {
            Self::Known { model, .. } => model.tokenize(sequence),
            Self::Pieces(pieces) => Ok(pieces.tokenize(sequence)),
        }
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        match self {
            Self::Known { model, .. } => model.token_to_id(token),
            Self::Pieces(pieces) => pieces.id(token),
        }
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        match self {
            Self::Known { model, spellings } => model.id_to_token(id).or_else(|| spellings.get(&id).cloned()),
            Self::Pieces(pieces) => pieces.spelling(id).map(str::to_owned),
        }
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        match self {
            Self::Known { model, .. } => model.get_vocab(),
            Self::Pieces(pieces) => pieces.ids().clone(),
        }
    }

    fn get_vocab_size(&self) -> usize {
        match self {
            Self::Known { model, .. } => model.get_vocab_size(),
            Self::Pieces(pieces) => pieces.len(),
        }
    }

    fn save(&self, folder: &Path, prefix: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        match self {
            Self::Known { model, .. } => model.save(folder, prefix),
            Self::Pieces(_) => Err("pieces with scores have no file of their own".into()),
        }
    }

    fn get_trainer(&self) -> Self::Trainer {
        match self {
            Self::Known { model, .. } => model.get_trainer(),
            Self::Pieces(_) => BpeTrainer::default().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_vocabularies() {
        let read = |text: &str| serde_json::from_str::<Vocabulary>(text);
        let bpe = r#"{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}"#;
        let v = read(bpe).expect("BPE");
        assert_eq!((v.id_to_token(1).as_deref(), v.id_to_token(2)), (Some("b"), None));
        let v = read(&format!(r#"{{"type":"Spelt","spellings":[[2,"a"]],"model":{bpe}}}"#)).expect("Spelt");
        assert_eq!((v.token_to_id("a"), v.id_to_token(2).as_deref()), (Some(0), Some("a")));
        let v =
            read(r#"{"type":"Pieces","tokens":["a","aa"],"scores":[0,-1],"unknown":null}"#).expect("Pieces");
        let ids = |text: &str| v.tokenize(text).map(|t| t.iter().map(|t| t.id).collect::<Vec<_>>());
        assert_eq!(ids("aaa").expect("tokens"), [1, 0]);
        for bad in [r#"{"type":"Pieces"}"#, r#"{"type":"Spelt","spellings":[]}"#, r#"{"type":"Other"}"#, "3"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}

//! The architectures: one file per `model_type`, one line each below.

use crate::config::Config;
use crate::config::class::Class;
use crate::error::LoadError;
use crate::layers::build::Build;
use crate::layers::{Decoder, Encoder, Scope};

/// A loaded network.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a model has one")]
pub enum Network {
    /// Predicts the next token.
    Decoder(Decoder),
    /// Gives states of all tokens.
    Encoder(Encoder),
}

macro_rules! decoders {
    ($($name:ident),* $(,)?) => {
        $(mod $name;)*

        /// Known values of `model_type`.
        pub const MODEL_TYPES: &[&str] = &[$(stringify!($name),)* "bert"];

        /// Whether a `model_type` gives states and has no cache.
        pub(crate) fn is_encoder(model_type: &str) -> bool {
            model_type == "bert"
        }

        /// What the configuration class of a `model_type` assumes.
        pub(crate) fn class(model_type: &str) -> Option<&'static Class> {
            match model_type {
                $(stringify!($name) => Some(&$name::CLASS),)*
                "bert" => Some(&bert::CLASS),
                _ => None,
            }
        }

        /// Builds the network that `model_type` names.
        pub(crate) async fn load(w: &Scope, cfg: &Config, context: u32) -> Result<Network, LoadError> {
            match cfg.model_type.as_str() {
                $(stringify!($name) => Ok(Network::Decoder($name::load(&Build::new(w, cfg, context)?).await?)),)*
                "bert" => Ok(Network::Encoder(bert::load(w, cfg).await?)),
                _ => Err(LoadError::UnknownModel { got: cfg.model_type.clone(), known: MODEL_TYPES.to_vec() }),
            }
        }
    };
}

mod bert;

decoders!(
    cohere,
    gemma2,
    gemma3_text,
    glm4,
    granite,
    llama,
    mistral,
    olmo2,
    olmo3,
    phi3,
    qwen2,
    qwen3,
    smollm3
);

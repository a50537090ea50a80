//! The architectures: one file per `model_type`, one line each below.

use crate::checkpoint::format::Known;
use crate::checkpoint::format::gguf;
use crate::checkpoint::format::mistral::Heads;
use crate::error::LoadError;
use crate::network::config::Config;
use crate::network::config::class::{Class, Named};
use crate::network::layers::build::Build;
use crate::network::layers::{Decoder, Encoder, Scope};

/// A loaded network.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a model has one")]
pub enum Network {
    /// Predicts the next token.
    Decoder(Decoder),
    /// Gives states of all tokens.
    Encoder(Encoder),
}

macro_rules! architectures {
    ($($decoder:ident),* ; $encoder:ident) => {
        mod $encoder;
        $(mod $decoder;)*

        /// Known values of `model_type`: decoders, and the encoder behind them.
        pub const MODEL_TYPES: &[&str] = &[$(stringify!($decoder),)* stringify!($encoder)];

        /// Whether a `model_type` gives states and has no cache.
        pub(crate) fn is_encoder(model_type: &str) -> bool {
            model_type == stringify!($encoder)
        }

        /// What the configuration class of each assumes.
        const CLASSES: &[Named] = &[
            $(Named { model_type: stringify!($decoder), class: &$decoder::CLASS },)*
            Named { model_type: stringify!($encoder), class: &$encoder::CLASS },
        ];

        /// What GGUF files hold of each.
        const GGUF: &[gguf::Architecture] = &[
            $(gguf_of(stringify!($decoder), &$decoder::CLASS, $decoder::GGUF),)*
            gguf_of(stringify!($encoder), &$encoder::CLASS, $encoder::GGUF),
        ];

        /// Builds the network that `model_type` names.
        pub(crate) async fn load(w: &Scope, cfg: &Config, context: u32) -> Result<Network, LoadError> {
            match cfg.model_type.as_str() {
                $(stringify!($decoder) => {
                    Ok(Network::Decoder(Box::pin($decoder::load(&Build::new(w, cfg, context)?)).await?))
                })*
                stringify!($encoder) => Ok(Network::Encoder($encoder::load(w, cfg).await?)),
                _ => Err(LoadError::UnknownModel { got: cfg.model_type.clone(), known: MODEL_TYPES.to_vec() }),
            }
        }
    };
}

architectures!(
    cohere,
    deepseek_v3,
    ernie4_5_moe,
    gemma,
    gemma2,
    gemma3_text,
    glm4,
    glm4_moe,
    gpt_oss,
    granite,
    granitemoe,
    hunyuan_v1_moe,
    llama,
    minimax,
    mistral,
    mixtral,
    olmo2,
    olmo3,
    olmoe,
    pangu_pro_moe,
    phi3,
    phimoe,
    qwen2,
    qwen2_moe,
    qwen3,
    qwen3_moe,
    smollm3;
    bert
);

/// What file formats must know of the architectures.
pub const KNOWN: Known = Known { gguf: GGUF, heads };

const fn gguf_of(model_type: &'static str, class: &Class, family: gguf::Family) -> gguf::Architecture {
    gguf::Architecture { model_type, class: class.name, biases: class.fixed_biases(), family }
}

fn heads(config: &[u8]) -> Result<Heads, LoadError> {
    let config = Config::parse(config)?;
    Ok(Heads {
        model_type: config.model_type,
        query: config.num_attention_heads,
        key: config.num_key_value_heads,
        dim: config.head_dim,
    })
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// Text that is not JSON, an unknown model, a field that is missing or that no model can have.
    pub fn parse(bytes: &[u8]) -> Result<Self, LoadError> {
        Self::read(bytes, CLASSES)
    }
}

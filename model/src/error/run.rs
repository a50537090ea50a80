//! Why a model cannot be run.

use girih_ops::{GpuError, KernelError, OpError};

use super::{LoadError, OutOfMemory, SampleError, TextError, device};

/// A model cannot be run.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RunError {
    /// No tokens at all.
    #[error("the prompt is empty: it must hold at least one token")]
    EmptyPrompt,
    /// More tokens than the cache holds.
    #[error("the prompt has {length} tokens, the context holds {context}: shorten it or raise --context")]
    PromptTooLong {
        /// Tokens found.
        length: usize,
        /// Tokens allowed.
        context: u32,
    },
    /// A context that the model does not have.
    #[error("the context is {got} tokens, must be 1 to {limit}")]
    Context {
        /// Tokens asked for.
        got: u32,
        /// Tokens allowed.
        limit: u32,
    },
    /// A token that the model has no embedding for.
    #[error("token id is {id}, must be below {vocab_size}")]
    TokenId {
        /// Id found.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: u32,
    },
    /// A sequence that the cache has no place for.
    #[error("slot is {got}, the cache has {slots}")]
    Slot {
        /// Slot asked for.
        got: u32,
        /// Slots of the cache.
        slots: u32,
    },
    /// Two inputs of one batch for the same sequence.
    #[error("slot {slot} occurs twice in one batch, must occur once")]
    SlotTwice {
        /// Slot.
        slot: u32,
    },
    /// Two models whose predictions cannot be compared.
    #[error(
        "the model has a vocabulary of {got} tokens, that of the reference is {want}: they must be equal"
    )]
    Vocabulary {
        /// Size of the model's.
        got: u32,
        /// Size of the reference's.
        want: u32,
    },
    /// Logits that are not numbers.
    #[error(
        "the logits are not finite numbers: keys or values are beyond f16 (if the cache is f16, try f32), or the weights or \
         the device are broken (try `girih doctor`)"
    )]
    NotANumber,
    /// A text too short to be scored.
    #[error("nothing to score: {tokens} tokens, at least 2 are needed (1 with a begin-of-text token)")]
    NothingToScore {
        /// Tokens found.
        tokens: usize,
    },
    /// A checkpoint without tokenizer.json, or vocabulary files that stand for it.
    #[error(
        "the checkpoint has no tokenizer.json: texts cannot be encoded (`girih logits --ids` takes ids). A tokenizer.model \
         or tekken.json alone is not read; `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)` of transformers \
         writes a tokenizer.json"
    )]
    NoTokenizer,
    /// An encoder where a decoder is needed.
    #[error("{model_type} is an encoder: it computes embeddings (`girih embed`), no text")]
    NotADecoder {
        /// Architecture.
        model_type: String,
    },
    /// A model without a pooler.
    #[error("{model_type} has no pooler")]
    NoPooler {
        /// Architecture.
        model_type: String,
    },
    /// A prompt that the checkpoint does not name.
    #[error("the prompt is {got:?}, the checkpoint has {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") })]
    NoPrompt {
        /// Name asked for.
        got: String,
        /// Names of the checkpoint's prompts.
        known: Vec<String>,
    },
    /// An expert that is not on the device cannot be brought there.
    #[error("layer {layer}, expert {expert}: {source}")]
    Expert {
        /// Index of the layer.
        layer: u32,
        /// Index of the expert.
        expert: u32,
        /// What is wrong.
        source: Box<LoadError>,
    },
    /// A call that returns at once, of a model whose experts must be waited for.
    #[error(
        "experts of this model are read while it runs, which this call cannot wait for: use one that can \
         (`Session::forward_async`, `Session::step_async`)"
    )]
    Waits,
    /// The cache does not fit.
    #[error("{0}")]
    OutOfMemory(#[from] OutOfMemory),
    /// Sampling parameters out of range, or nothing to choose from.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// Text that cannot be encoded, ids that cannot be decoded, a template that fails.
    #[error(transparent)]
    Text(#[from] TextError),
    /// An operation was refused.
    #[error(transparent)]
    Op(#[from] OpError),
    /// A kernel could not be run.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The device failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

impl RunError {
    /// The failure of the device behind this error, if that is what it is. After [`GpuError::Lost`] a new device
    /// must be opened and the model loaded again.
    pub fn device(&self) -> Option<&GpuError> {
        match self {
            Self::Gpu(error) | Self::Kernel(KernelError::Gpu(error)) => Some(error),
            Self::Op(error) => device(error),
            Self::Expert { source, .. } => source.device(),
            _ => None,
        }
    }
}

//! What is fuzzed: everything that girih reads, as loading, `inspect` and generation read it, up to the GPU.

mod caches;
mod checkpoint;
mod configs;
mod text;

use std::fmt::Display;
use std::sync::Arc;

use girih_model::checkpoint::source::{ByteSource, MemorySource};

use crate::Files;

/// One way into girih.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name, also of its folders.
    pub name: &'static str,
    /// Name of the file that it reads; `None`: inputs are bundles of several files.
    pub only: Option<&'static str>,
    /// Words that mean something in its inputs.
    pub words: &'static [&'static str],
    /// Reads the input. Panics, memory and time are seen from outside; an error says what else is wrong.
    pub run: fn(&Files) -> Result<(), String>,
}

/// All targets.
pub const ALL: &[Target] = &[
    checkpoint::SAFETENSORS,
    checkpoint::INDEX,
    checkpoint::GGUF,
    checkpoint::QUANTISED,
    configs::CONFIG,
    configs::GENERATION_CONFIG,
    configs::SENTENCE_TRANSFORMERS,
    text::TOKENIZER,
    text::CHAT_TEMPLATE,
    caches::CACHES,
];

/// Bytes of an error's message at most. Values are shown as excerpts; what is quoted whole are names, of which an input of
/// [`MAX_BYTES`](crate::input::MAX_BYTES) has only so many: escaped, a byte becomes up to 8 (`\u{fffd}`).
const MESSAGE: usize = 4096 + 8 * crate::input::MAX_BYTES;

/// The value, if there is one; of an error, that its message does not grow beyond its input.
fn bounded<T, E: Display>(result: Result<T, E>) -> Result<Option<T>, String> {
    let error = match result {
        Ok(value) => return Ok(Some(value)),
        Err(error) => error.to_string(),
    };
    if error.len() <= MESSAGE {
        return Ok(None);
    }
    Err(format!("an error message of more than {MESSAGE} bytes"))
}

/// The files of an input as a source.
fn source(input: &Files) -> Arc<dyn ByteSource> {
    let files = input.files.iter();
    Arc::new(files.fold(MemorySource::new(), |all, (name, bytes)| all.with(name.clone(), bytes.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus;

    /// Every target has seeds, and none of them is refused: a corpus of refused files would test the first check only.
    #[test]
    fn every_target_has_seeds() {
        for target in ALL {
            let seeds = corpus::read(target, &corpus::seeds(target));
            assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        }
    }

    #[test]
    fn long_messages_are_seen() {
        assert_eq!(bounded::<u8, _>(Err("x".repeat(MESSAGE))), Ok(None));
        assert!(bounded::<u8, _>(Err("x".repeat(MESSAGE + 1))).is_err());
        assert_eq!(bounded::<u8, String>(Ok(1)), Ok(Some(1)));
    }
}

//! The story model that is built into the command (assets/fable-5m).

use std::borrow::Cow;

use girih_model::source::MemorySource;

/// Name of the built-in model.
pub const NAME: &str = "fable-5m";

/// Its files.
pub fn source() -> MemorySource {
    macro_rules! file {
        ($name:literal) => {
            ($name.to_owned(), Cow::Borrowed(&include_bytes!(concat!("../assets/fable-5m/", $name))[..]))
        };
    }
    MemorySource::new([
        file!("config.json"),
        file!("generation_config.json"),
        file!("model.safetensors"),
        file!("tokenizer.json"),
        file!("tokenizer_config.json"),
    ])
}

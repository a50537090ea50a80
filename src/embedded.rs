//! The story model that is built into the command (assets/fable-5m).

use std::borrow::Cow;

use girih_model::checkpoint::source::MemorySource;

/// Name of the built-in model.
pub const NAME: &str = "fable-5m";

/// Its files.
pub fn source() -> MemorySource {
    macro_rules! file {
        ($name:literal) => {
            Cow::Borrowed(&include_bytes!(concat!("../assets/fable-5m/", $name))[..])
        };
    }
    MemorySource::new()
        .with("config.json", file!("config.json"))
        .with("generation_config.json", file!("generation_config.json"))
        .with("model.safetensors", file!("model.safetensors"))
        .with("tokenizer.json", file!("tokenizer.json"))
        .with("tokenizer_config.json", file!("tokenizer_config.json"))
}

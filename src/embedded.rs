//! The story models that are built into the command (assets/).

use std::borrow::Cow;
use std::path::Path;

use girih_model::checkpoint::source::MemorySource;

/// A built-in model.
#[derive(Clone, Copy, Debug)]
pub struct Embedded {
    /// What `--model` calls it.
    pub name: &'static str,
    files: &'static [(&'static str, &'static [u8])],
}

macro_rules! embedded {
    ($name:literal) => {
        Embedded {
            name: $name,
            files: &[
                ("config.json", include_bytes!(concat!("../assets/", $name, "/config.json"))),
                (
                    "generation_config.json",
                    include_bytes!(concat!("../assets/", $name, "/generation_config.json")),
                ),
                ("model.safetensors", include_bytes!(concat!("../assets/", $name, "/model.safetensors"))),
                // One tokenizer serves both.
                ("tokenizer.json", include_bytes!("../assets/fable-5m/tokenizer.json")),
                (
                    "tokenizer_config.json",
                    include_bytes!(concat!("../assets/", $name, "/tokenizer_config.json")),
                ),
            ],
        }
    };
}

/// The dense model, which is taken where none is named.
pub const DENSE: Embedded = embedded!("fable-5m");
/// The mixture of experts.
const MIXTURE: Embedded = embedded!("fable-moe");

impl Embedded {
    /// The model that a path names, unless there is something at that path.
    pub fn at(path: &Path) -> Option<Self> {
        [DENSE, MIXTURE].into_iter().find(|model| path.as_os_str() == model.name && !path.exists())
    }

    /// Its files.
    pub fn source(self) -> MemorySource {
        self.files
            .iter()
            .fold(MemorySource::new(), |source, &(name, bytes)| source.with(name, Cow::Borrowed(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_found_by_name() {
        for name in ["fable-5m", "fable-moe"] {
            assert_eq!(Embedded::at(Path::new(name)).map(|model| model.name), Some(name));
        }
        assert!(Embedded::at(Path::new("fable")).is_none());
        assert!(Embedded::at(Path::new("src")).is_none());
    }

    #[test]
    fn both_have_the_same_tokenizer() {
        let own: &[u8] = include_bytes!("../assets/fable-moe/tokenizer.json");
        assert!(own == include_bytes!("../assets/fable-5m/tokenizer.json"));
    }
}

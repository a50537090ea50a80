//! What the cross-crate tests share.

pub mod checkpoints;
pub mod devices;
pub mod gguf;
pub mod goldens;
pub mod shaders;

use std::path::Path;
use std::sync::Arc;

use girih_kernels::{Gpu, Options};
use girih_model::source::{ByteSource, DirSource};
use girih_model::{LoadOptions, Model};

/// The device of the tests: the best adapter, at the tier of `GIRIH_TIER`.
///
/// # Panics
/// Without an adapter: a test run without a device must fail, not pass.
pub fn gpu() -> Gpu {
    pollster::block_on(Gpu::new(Options::default())).expect("an adapter (README says how to get one)")
}

/// The built-in story model, a Llama of 5 million parameters.
pub fn fable() -> Arc<dyn ByteSource> {
    Arc::new(DirSource::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/fable-5m")))
}

/// Loads a checkpoint.
///
/// # Panics
/// A checkpoint that does not load.
pub fn load(gpu: &Gpu, source: Arc<dyn ByteSource>, options: LoadOptions) -> Arc<Model> {
    pollster::block_on(Model::load(gpu, source, options, |_| ())).unwrap_or_else(|e| panic!("{e}"))
}

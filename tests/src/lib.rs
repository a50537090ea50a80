//! What the cross-crate tests share.

pub mod checkpoints;
pub mod devices;
mod each;
pub mod files;
pub mod gguf;
pub mod goldens;
pub mod on_device;
pub mod routing;
mod skip;

#[cfg(not(target_arch = "wasm32"))]
pub mod shaders;

use std::sync::Arc;

use girih_model::checkpoint::source::ByteSource;

pub use each::each;
pub use girih_test_macros::on_device;
pub use on_device::gpu_with;
#[cfg(not(target_arch = "wasm32"))]
pub use on_device::{gpu, load};
#[cfg(not(target_arch = "wasm32"))]
pub use skip::print_line as print_skipped;
pub use skip::skipped;
#[cfg(target_arch = "wasm32")]
pub use skip::take as take_skipped;

/// The built-in story model, a Llama of 5 million parameters.
pub fn fable() -> Arc<dyn ByteSource> {
    files::source(&files::root().join("assets/fable-5m"))
}

/// The files of the built-in mixture of experts.
pub fn fable_moe() -> Arc<dyn ByteSource> {
    files::source(&files::root().join("assets/fable-moe"))
}

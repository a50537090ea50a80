//! The tests on a device, as a WASM module. `kernels.js` runs them.
//!
//! The sources are those of the native tests, included by path: the build script finds every function with
//! `#[girih_tests::on_device]` in `tests/tests` and in `src/tests`.

#[cfg(not(target_arch = "wasm32"))]
pub mod scan;

#[cfg(target_arch = "wasm32")]
mod page;

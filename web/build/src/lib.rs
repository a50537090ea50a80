//! From the WASM modules of a build to what a browser loads.
//!
//! [`package`] makes `web` in cargo's target folder: the npm package `girih`, the static site, the test pages. [`size`] says what
//! takes the bytes of the module, [`manifest`] lists the files of a model with their hashes, and [`serve`] is the
//! static server of `cargo xtask web --serve` and of the browser tests.

pub mod manifest;
pub mod package;
pub mod serve;
pub mod size;

//! The WGSL of girih and the specialiser that composes it. No wgpu, no naga: text in, text out.
//!
//! A shader file is WGSL with directives in comments:
//!
//! | directive | meaning |
//! |---|---|
//! | `const BM: u32 = 64u; //!spec` | the value is replaced by [`Selection::set`]; also `alias T = f32; //!spec` |
//! | `//!import common/reduce.wgsl` | the file is put here; [`Selection::part`] with the stem (`reduce`) puts another one |
//! | `//!slot NAME` .. `//!end` | default text, replaced by the file that [`Selection::part`] names |
//! | `for (var i = 0u; i < TM; i++) { //!unroll` .. `} //!unroll` | the body once per iteration, `i` a literal |
//! | `//!enable f16` | hoisted to the top; `subgroups` is written for browsers only (naga 30 refuses it) |
//!
//! Local arrays indexed by constants stay in registers and need no bounds clamp: unrolling makes checked
//! code as fast as unchecked code, in browsers too.
//!
//! ```
//! use girih_shaders::{ComposeError, Dialect, Selection, compose};
//!
//! // RMS norm on subgroups, with workgroups of 64.
//! let selection = Selection::new().set("WG", 64).part("reduce", "common/reduce_subgroup.wgsl");
//! let native = compose("norm/rms_norm.wgsl", &selection, Dialect::Naga)?;
//! assert!(native.wgsl.contains("const WG: u32 = 64u;"));
//! let browser = compose("norm/rms_norm.wgsl", &selection, Dialect::Browser)?;
//! assert!(browser.wgsl.starts_with("enable subgroups;"));
//!
//! // Positions in a compiler's message lead back to the files.
//! let line = native.wgsl.lines().position(|l| l.starts_with("fn main")).unwrap_or_default() as u32 + 1;
//! assert!(native.origin(line).is_some_and(|at| at.starts_with("norm/rms_norm.wgsl:")));
//!
//! // A misspelt name is an error.
//! let misspelt = compose("norm/rms_norm.wgsl", &Selection::new().set("WGS", 64), Dialect::Naga);
//! assert!(matches!(misspelt, Err(ComposeError::NoSpec { .. })));
//! # Ok::<(), ComposeError>(())
//! ```

mod compose;
mod select;

pub use compose::{ComposeError, Composed, Dialect, compose};
pub use select::{Selection, Value};

include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// The text of one shader file, by its path below `shaders/`.
pub fn file(path: &str) -> Option<&'static str> {
    FILES.binary_search_by_key(&path, |&(name, _)| name).ok().map(|i| FILES[i].1)
}

/// Paths of all shader files, sorted.
pub fn files() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|&(name, _)| name)
}

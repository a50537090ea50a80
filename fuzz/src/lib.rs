//! Coverage-guided fuzzing of everything that girih reads, on the stable toolchain and without a GPU.
//!
//! A [`targets::Target`] is a function of some [`Files`], one file or several. [`worker`] runs it on mutations of what
//! has reached new code ([`engine`], [`mutate`], [`coverage`]), in a thread with the stack of a browser's worker, under
//! bounds of memory and time. [`campaign`] starts workers as processes, so that aborts, overflows of the stack and
//! hangs are findings too. How to run it, how to add a target: `docs/fuzzing.md`.

pub mod campaign;
pub mod corpus;
pub mod coverage;
pub mod engine;
pub mod input;
pub mod mutate;
pub mod random;
pub mod runtime;
pub mod targets;
pub mod worker;

pub use input::Files;
pub use random::Random;

//! Development commands: `cargo xtask setup | run | web | test | ci | fuzz | isa | tidy | accuracy |
//! published | bless`. The library part reads source
//! text, for `tidy` and for the layering test.

pub mod accuracy;
pub mod apt;
pub mod browser;
pub mod fuzz;
mod install;
pub mod isa;
pub mod jobs;
pub mod process;
pub mod published;
pub mod setup;
pub mod source;
pub mod suite;
pub mod tidy;
pub mod web;

//! One module per subcommand.

pub mod bench;
mod bench_expert_memory;
pub mod bench_experts;
pub mod bench_kernels;
pub mod bench_quality;
pub mod chat;
pub mod doctor;
pub mod embed;
pub mod eval;
pub mod explain;
pub mod generate;
pub mod inspect;
pub mod logits;
pub mod quantize;
pub mod sampling;
pub mod tune;

use std::path::Path;

use crate::error::Failure;

/// Reads a text file of the user's.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let file = |source| Failure::File { path: path.display().to_string(), source };
    let bytes = std::fs::read(path).map_err(file)?;
    String::from_utf8(bytes).map_err(|e| file(std::io::Error::new(std::io::ErrorKind::InvalidData, e)))
}

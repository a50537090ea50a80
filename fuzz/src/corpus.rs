//! Inputs on disk: seeds, what reached something new in earlier runs, what failed.

use std::path::{Path, PathBuf};

use crate::Files;
use crate::input::MAX_BYTES;
use crate::targets::Target;

/// The folder of this crate.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Seeds of a target that are part of the project.
pub fn seeds(target: &Target) -> PathBuf {
    root().join("corpus").join(target.name)
}

/// Inputs that failed once.
pub fn regressions(target: &Target) -> PathBuf {
    root().join("regressions").join(target.name)
}

/// The inputs of a folder, in the order of their names; none if there is no folder. Files beyond [`MAX_BYTES`] and those
/// of other kinds (`README.md`) are passed over.
pub fn read(target: &Target, dir: &Path) -> Vec<(PathBuf, Files)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| p.is_file()).collect();
    paths.sort();
    let read = paths.into_iter().filter_map(|path| {
        let bytes = std::fs::read(&path).ok()?;
        let fits = bytes.len() <= MAX_BYTES && path.extension().is_none_or(|e| e != "md");
        fits.then(|| (path, Files::decode(target.only, &bytes)))
    });
    read.collect()
}

/// Keeps an input under a name made of its content.
///
/// # Errors
/// A folder that cannot be written.
pub fn keep(target: &Target, dir: &Path, input: &Files) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join(format!("{:016x}", input.hash()));
    std::fs::write(&path, input.encode(target.only))?;
    Ok(path)
}

//! `girih-manifest.json`: size and SHA-256 of every file of a model, and of every block of it, so that a loader
//! can check a download block by block as it arrives.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Name of the manifest in a model's folder.
pub const FILE_NAME: &str = "girih-manifest.json";

/// Bytes of a block.
pub const BLOCK_SIZE: u64 = 4 << 20;

/// The files of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format: 1.
    pub version: u32,
    /// Files by name, relative to the folder.
    pub files: BTreeMap<String, Entry>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// Bytes of each block but the last.
    pub block_size: u64,
    /// SHA-256 of each block.
    pub blocks: Vec<String>,
}

/// A manifest that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file or folder that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder in which there is nothing to list.
    #[error("{}: found no file, wanted those of a model", .0.display())]
    Empty(PathBuf),
}

impl Manifest {
    /// Reads all files of a folder; hidden ones, folders and an earlier manifest are left out.
    ///
    /// # Errors
    /// A file that cannot be read, an empty folder.
    pub fn of(dir: &Path) -> Result<Self, ManifestError> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(io_error(dir))? {
            let path = entry.map_err(io_error(dir))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !path.is_file() || name.starts_with('.') || name == FILE_NAME {
                continue;
            }
            let file = File::open(&path).map_err(io_error(&path))?;
            files.insert(name, Entry::of(file, BLOCK_SIZE).map_err(io_error(&path))?);
        }
        if files.is_empty() { Err(ManifestError::Empty(dir.into())) } else { Ok(Self { version: 1, files }) }
    }

    /// Writes `girih-manifest.json` into a folder; returns its path.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, dir: &Path) -> Result<PathBuf, ManifestError> {
        let path = dir.join(FILE_NAME);
        let mut text =
            serde_json::to_string_pretty(self).map_err(io::Error::from).map_err(io_error(&path))?;
        text.push('\n');
        fs::write(&path, text).map_err(io_error(&path))?;
        Ok(path)
    }
}

impl Entry {
    /// Reads a file to its end.
    fn of(file: impl Read, block_size: u64) -> io::Result<Self> {
        let mut file = file;
        let (mut size, mut whole, mut blocks) = (0, Sha256::new(), Vec::new());
        loop {
            let mut block = Vec::new();
            let read = file.by_ref().take(block_size).read_to_end(&mut block)? as u64;
            if read == 0 && size > 0 {
                break;
            }
            size += read;
            whole.update(&block);
            blocks.push(hex(&Sha256::digest(&block)));
            if read < block_size {
                break;
            }
        }
        Ok(Self { size, sha256: hex(&whole.finalize()), block_size, blocks })
    }
}

/// Hexadecimal digits of a hash.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ManifestError {
    let path = path.to_owned();
    move |source| ManifestError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::tests::TempDir;

    #[test]
    fn the_hashes_are_sha256() {
        let entry = Entry::of(&b"abc"[..], 4).unwrap();
        assert_eq!(entry.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(entry.blocks, [entry.sha256.clone()], "one block is the whole file");
        assert_eq!(entry.size, 3);
        let empty = Entry::of(&b""[..], 4).unwrap();
        assert_eq!(empty.sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(empty.blocks.len(), 1);
    }

    #[test]
    fn blocks_cover_the_file() {
        for (len, blocks) in [(4, 1), (5, 2), (8, 2), (9, 3)] {
            let bytes = vec![7; len];
            let entry = Entry::of(&bytes[..], 4).unwrap();
            assert_eq!((entry.blocks.len(), entry.size), (blocks, len as u64), "{len} bytes");
            let last = &bytes[(blocks - 1) * 4..];
            assert_eq!(entry.blocks[blocks - 1], hex(&Sha256::digest(last)));
        }
    }

    #[test]
    fn a_folder_is_listed_and_written() {
        let dir = TempDir::new();
        assert!(matches!(Manifest::of(dir.path()), Err(ManifestError::Empty(_))));
        assert!(matches!(Manifest::of(&dir.path().join("none")), Err(ManifestError::Io { .. })));
        for name in ["config.json", "model.safetensors", ".gitattributes"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let manifest = Manifest::of(dir.path()).unwrap();
        assert_eq!(manifest.files.keys().collect::<Vec<_>>(), ["config.json", "model.safetensors"]);
        let path = manifest.write(dir.path()).unwrap();
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains("\"blockSize\": 4194304"), "{text}");
        assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest);
        assert_eq!(Manifest::of(dir.path()).unwrap(), manifest, "a manifest does not list itself");
    }
}

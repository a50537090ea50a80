//! Files of a folder.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use super::{BoxFuture, ByteSource};
use crate::LoadError;
use crate::format::gguf::is_part_of;

/// The files of a folder, read by position. Names may have subfolders, but cannot leave the folder: an index file
/// is data from a stranger.
#[derive(Clone, Debug)]
pub struct DirSource {
    dir: PathBuf,
    /// The only file, if the source is one.
    only: Option<String>,
}

impl DirSource {
    /// The files of `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), only: None }
    }

    /// A folder, or a single file: a source that holds this file alone, with the other parts of a split one.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path.file_name().and_then(|n| n.to_str()).map(str::to_owned);
        match (path.is_file(), name) {
            (true, Some(name)) => Self { dir: path.with_file_name(""), only: Some(name) },
            _ => Self::new(path),
        }
    }

    fn open(&self, file: &str) -> Result<Option<(File, u64)>, LoadError> {
        if file.is_empty() || !Path::new(file).components().all(|c| matches!(c, Component::Normal(_))) {
            return Err(LoadError::FileName { file: file.to_owned() });
        }
        if self.only.as_deref().is_some_and(|only| only != file && !is_part_of(file, only)) {
            return Ok(None);
        }
        let path = self.dir.join(file);
        let error =
            |e: &std::io::Error| LoadError::Read { file: path.display().to_string(), message: e.to_string() };
        // Looked at first: opening a pipe waits for its other end.
        let meta = match std::fs::metadata(&path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(error(&e)),
        };
        if !meta.is_file() {
            return Err(error(&std::io::Error::other("not a file")));
        }
        let opened = File::open(&path).map_err(|e| error(&e))?;
        let size = opened.metadata().map_err(|e| error(&e))?.len();
        Ok(Some((opened, size)))
    }

    fn slice(&self, file: &str, range: &Range<u64>) -> Result<Vec<u8>, LoadError> {
        let (mut opened, got) =
            self.open(file)?.ok_or_else(|| LoadError::NoFile { file: file.to_owned() })?;
        if range.start > range.end || range.end > got {
            return Err(LoadError::Truncated { file: file.to_owned(), got, want: range.end });
        }
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        opened
            .seek(SeekFrom::Start(range.start))
            .and_then(|_| opened.take(range.end - range.start).read_to_end(&mut bytes))
            .map_err(|e| LoadError::Read { file: file.to_owned(), message: e.to_string() })?;
        let want = range.end;
        let got = range.start + bytes.len() as u64;
        if got != want {
            return Err(LoadError::Truncated { file: file.to_owned(), got, want });
        }
        Ok(bytes)
    }
}

impl ByteSource for DirSource {
    fn read<'a>(&'a self, file: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Vec<u8>, LoadError>> {
        Box::pin(std::future::ready(self.slice(file, &range)))
    }

    fn size<'a>(&'a self, file: &'a str) -> BoxFuture<'a, Result<Option<u64>, LoadError>> {
        Box::pin(std::future::ready(self.open(file).map(|found| found.map(|(_, size)| size))))
    }

    fn list(&self) -> Option<Vec<String>> {
        if let Some(only) = &self.only {
            return Some(vec![only.clone()]);
        }
        let entries = std::fs::read_dir(&self.dir).ok()?;
        let mut names: Vec<String> = entries
            .filter_map(|e| e.ok().filter(|e| e.path().is_file())?.file_name().into_string().ok())
            .collect();
        names.sort();
        Some(names)
    }
}

//! Files of a folder.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use super::{BoxFuture, ByteSource, is_part_of};
use crate::LoadError;

/// The files of a folder, read by position. Names may have subfolders, but cannot leave the folder: an index file
/// is data from a stranger.
#[derive(Clone, Debug)]
pub struct DirSource {
    dir: PathBuf,
    /// The only file, if the source is one: its name, as text, and where it is.
    only: Option<(String, PathBuf)>,
}

impl DirSource {
    /// The files of `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), only: None }
    }

    /// A folder, or a single file: a source that holds this file alone, with the other parts of a split one.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        match path.file_name().map(|name| name.to_string_lossy().into_owned()) {
            Some(name) if path.is_file() => Self { dir: path.with_file_name(""), only: Some((name, path)) },
            _ => Self::new(path),
        }
    }

    fn open(&self, file: &str) -> Result<Option<(File, u64)>, LoadError> {
        if file.is_empty() || !Path::new(file).components().all(|c| matches!(c, Component::Normal(_))) {
            return Err(LoadError::FileName { file: file.to_owned() });
        }
        let path = match &self.only {
            Some((only, path)) if only == file => path.clone(),
            Some((only, _)) if !is_part_of(file, only) => return Ok(None),
            _ => self.dir.join(file),
        };
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
        let len = range.end - range.start;
        let failed = |message: String| LoadError::Read { file: file.to_owned(), message };
        let mut bytes = Vec::new();
        // A file may be larger than memory, on disk or in name only.
        usize::try_from(len)
            .ok()
            .and_then(|len| bytes.try_reserve_exact(len).ok())
            .ok_or_else(|| failed(format!("there is no memory for {len} bytes at once")))?;
        opened
            .seek(SeekFrom::Start(range.start))
            .and_then(|_| opened.take(len).read_to_end(&mut bytes))
            .map_err(|e| failed(e.to_string()))?;
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
        if let Some((only, _)) = &self.only {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::block_on;

    /// A folder that is removed with its test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("girih-dir-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir_all(&dir).expect("a folder");
            Self(dir)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_no_file_is_an_error_and_what_is_absent_is_none() {
        let folder = Folder::new("kinds");
        std::fs::create_dir(folder.0.join("config.json")).expect("a folder");
        std::fs::write(folder.0.join("a"), b"abcd").expect("a file");
        let source = DirSource::new(&folder.0);
        assert!(matches!(block_on(source.size("config.json")), Err(LoadError::Read { .. })));
        assert!(matches!(block_on(source.size("a/b")), Err(LoadError::Read { .. })));
        assert!(matches!(block_on(source.size("b")), Ok(None)));
        assert_eq!(source.list(), Some(vec!["a".to_owned()]));
        for name in ["", "..", "../a", "/a", "b/../../a"] {
            assert!(matches!(block_on(source.size(name)), Err(LoadError::FileName { .. })), "{name}");
        }
        assert_eq!(block_on(source.read("a", 1..3)).expect("bytes"), b"bc");
        for (start, end) in [(0, 5), (3, 2), (0, u64::MAX)] {
            let range = start..end;
            assert!(block_on(source.read("a", range)).is_err());
        }
    }

    /// Parts of a file that is larger than any memory can be read; what lies beyond it is an error that takes nothing.
    #[test]
    fn a_file_larger_than_memory_is_read_in_parts() {
        let folder = Folder::new("sparse");
        let file = File::create(folder.0.join("a")).expect("a file");
        if file.set_len(1 << 43).is_err() {
            crate::testing::skipped("the file system has no files larger than memory");
            return;
        }
        let source = DirSource::new(&folder.0);
        // All of it is not asked for: a system may promise memory that it does not have.
        let error = block_on(source.read("a", 0..1 << 62)).expect_err("truncated");
        assert!(matches!(error, LoadError::Truncated { got, .. } if got == 1 << 43), "{error}");
        assert_eq!(block_on(source.read("a", (1 << 43) - 2..1 << 43)).expect("bytes"), [0, 0]);
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_no_text_and_links_are_opened() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let folder = Folder::new("names");
        let odd = folder.0.join(OsStr::from_bytes(b"model-\xff.gguf"));
        if std::fs::write(&odd, b"abc").is_err() {
            crate::testing::skipped("the file system takes names that are text only");
            return;
        }
        let source = DirSource::at(&odd);
        let [name] = &source.list().expect("a list")[..] else { panic!("one file") };
        assert_eq!(block_on(source.read(name, 0..3)).expect("bytes"), b"abc");
        std::os::unix::fs::symlink(&odd, folder.0.join("linked.json")).expect("a link");
        std::os::unix::fs::symlink("nowhere", folder.0.join("broken.json")).expect("a link");
        std::os::unix::fs::symlink("loop.json", folder.0.join("loop.json")).expect("a link");
        let source = DirSource::new(&folder.0);
        assert_eq!(block_on(source.size("linked.json")).expect("a size"), Some(3));
        assert!(matches!(block_on(source.size("broken.json")), Ok(None)));
        assert!(matches!(block_on(source.size("loop.json")), Err(LoadError::Read { .. })));
        assert_eq!(source.list(), Some(vec!["linked.json".to_owned()]));
    }
}

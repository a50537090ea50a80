//! Where bytes come from: folders and closures below a prefix.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// The bytes of one file.
pub trait Content {
    /// How many there are.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A quoted string that changes when the bytes do.
    fn etag(&self) -> String;

    /// Some of them, within the length.
    ///
    /// # Errors
    /// Bytes that cannot be read.
    fn read(&mut self, range: Range<u64>) -> io::Result<Vec<u8>>;
}

type Handler = dyn Fn(&str) -> Option<(String, Box<dyn Content>)> + Send + Sync;

/// What is served below a prefix.
#[derive(Clone)]
pub struct Route {
    prefix: String,
    handler: Arc<Handler>,
}

impl Route {
    /// A closure that is handed the path below the prefix, without a slash at its start.
    pub fn new(
        prefix: &str,
        handler: impl Fn(&str) -> Option<Box<dyn Content>> + Send + Sync + 'static,
    ) -> Self {
        let named = move |path: &str| handler(path).map(|content| (path.to_owned(), content));
        Self { prefix: prefix.into(), handler: Arc::new(named) }
    }

    /// The files of a folder; `index.html` stands for the folder that it is in.
    pub fn folder(prefix: &str, dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self { prefix: prefix.into(), handler: Arc::new(move |path| open(&dir, path)) }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The content at a path of the server and a name that tells its type; a name that ends in a slash is a folder's.
    pub(crate) fn find(&self, path: &str) -> Option<(String, Box<dyn Content>)> {
        (self.handler)(path.strip_prefix(&self.prefix)?)
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

struct OnDisk {
    file: File,
    len: u64,
    etag: String,
}

fn open(dir: &Path, path: &str) -> Option<(String, Box<dyn Content>)> {
    // Names only: nothing leads out of the folder.
    if !Path::new(path).components().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    let mut full = dir.join(path);
    let mut name = path.to_owned();
    if full.is_dir() {
        name = if path.is_empty() || path.ends_with('/') { "index.html".into() } else { format!("{path}/") };
        full = full.join("index.html");
    }
    let metadata = fs::metadata(&full).ok().filter(fs::Metadata::is_file)?;
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let etag = format!("\"{:x}-{:x}\"", metadata.len(), modified.map_or(0, |time| time.as_nanos()));
    let content = OnDisk { file: File::open(&full).ok()?, len: metadata.len(), etag };
    Some((name, Box::new(content)))
}

impl Content for OnDisk {
    fn len(&self) -> u64 {
        self.len
    }

    fn etag(&self) -> String {
        self.etag.clone()
    }

    fn read(&mut self, range: Range<u64>) -> io::Result<Vec<u8>> {
        self.file.seek(SeekFrom::Start(range.start))?;
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

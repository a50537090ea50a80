//! Files of the repository that tests read: from disk natively; in a browser those that the page has fetched and put
//! here before the test runs. Paths start with `goldens/` or `assets/` there.

#[cfg(not(target_arch = "wasm32"))]
mod disk {
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use girih_model::checkpoint::source::{ByteSource, DirSource};

    /// The root of the repository.
    pub fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    /// The folder of all goldens: `GIRIH_GOLDENS` if set, else the committed copy.
    pub fn goldens() -> PathBuf {
        std::env::var_os("GIRIH_GOLDENS")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens"), PathBuf::from)
    }

    /// A whole file.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    /// Names of the files in a folder and in its subfolders, these with `/`; sorted, empty if there is no such folder.
    pub fn below(dir: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() {
                found.extend(below(&entry.path()).iter().map(|inner| format!("{name}/{inner}")));
            } else {
                found.push(name);
            }
        }
        found.sort();
        found
    }

    /// A folder as a checkpoint.
    pub fn source(dir: &Path) -> Arc<dyn ByteSource> {
        Arc::new(DirSource::new(dir))
    }
}

#[cfg(target_arch = "wasm32")]
mod page {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use girih_model::checkpoint::source::{ByteSource, MemorySource};

    thread_local! {
        static FILES: RefCell<BTreeMap<PathBuf, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Puts a file where tests look for it.
    pub fn put(path: &str, bytes: Vec<u8>) {
        FILES.with_borrow_mut(|files| files.insert(path.into(), bytes));
    }

    /// Whether a file is there.
    pub fn has(path: &str) -> bool {
        FILES.with_borrow(|files| files.contains_key(Path::new(path)))
    }

    /// What all paths are below.
    pub fn root() -> PathBuf {
        PathBuf::new()
    }

    /// The folder of all goldens.
    pub fn goldens() -> PathBuf {
        "goldens".into()
    }

    /// A whole file.
    ///
    /// # Errors
    /// A file that was not put here.
    pub fn read(path: &Path) -> io::Result<Vec<u8>> {
        FILES.with_borrow(|files| files.get(path).cloned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Names of the files in a folder and in its subfolders, these with `/`; sorted, empty if there is no such folder.
    pub fn below(dir: &Path) -> Vec<String> {
        FILES.with_borrow(|files| {
            let below = files.keys().filter_map(|path| path.strip_prefix(dir).ok());
            below.map(|path| path.to_string_lossy().into_owned()).collect()
        })
    }

    /// A folder as a checkpoint.
    pub fn source(dir: &Path) -> Arc<dyn ByteSource> {
        let add = |source: MemorySource, name: String| {
            let bytes = read(&dir.join(&name)).unwrap_or_default();
            source.with(name, bytes)
        };
        Arc::new(below(dir).into_iter().fold(MemorySource::new(), add))
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub use disk::{below, goldens, read, root, source};
#[cfg(target_arch = "wasm32")]
pub use page::{below, goldens, has, put, read, root, source};

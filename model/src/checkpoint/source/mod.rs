//! Where the bytes of a checkpoint come from: a folder, memory, or anything a page can implement (HTTP ranges,
//! dropped files, OPFS).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::pin::Pin;

use crate::LoadError;
use crate::checkpoint::table::TensorTable;

#[cfg(not(target_arch = "wasm32"))]
mod dir;
mod parts;

#[cfg(not(target_arch = "wasm32"))]
pub use dir::DirSource;
pub(crate) use parts::Place;
pub use parts::is_part_of;

/// A future in a box. It can be sent to another thread, except on the web, where there is one.
#[cfg(not(target_arch = "wasm32"))]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A future in a box. It can be sent to another thread, except on the web, where there is one.
#[cfg(target_arch = "wasm32")]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What a source must be to be shared: `Send + Sync`, except on the web.
#[cfg(not(target_arch = "wasm32"))]
pub trait Shared: Send + Sync {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Send + Sync + ?Sized> Shared for T {}
/// What a source must be to be shared: `Send + Sync`, except on the web.
#[cfg(target_arch = "wasm32")]
pub trait Shared {}
#[cfg(target_arch = "wasm32")]
impl<T: ?Sized> Shared for T {}

/// What a callback must be to be kept by a loading that may move to another thread: `Send`, except on the web.
#[cfg(not(target_arch = "wasm32"))]
pub trait Sendable: Send {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Send + ?Sized> Sendable for T {}
/// What a callback must be to be kept by a loading that may move to another thread: `Send`, except on the web.
#[cfg(target_arch = "wasm32")]
pub trait Sendable {}
#[cfg(target_arch = "wasm32")]
impl<T: ?Sized> Sendable for T {}

/// A callback in a box.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) type Callback<T> = Box<dyn FnMut(T) + Send>;
/// A callback in a box.
#[cfg(target_arch = "wasm32")]
pub(crate) type Callback<T> = Box<dyn FnMut(T)>;

/// Random access to the files of one checkpoint.
pub trait ByteSource: Debug + Shared {
    /// Bytes `range` of a file.
    ///
    /// # Errors
    /// [`LoadError::NoFile`], [`LoadError::Truncated`] if the range does not lie in the file, and
    /// [`LoadError::Read`]. Nothing of the size of the range may be allocated before it is known to be there.
    fn read<'a>(&'a self, file: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Vec<u8>, LoadError>>;

    /// Size of a file in bytes; `None` if there is no such file.
    ///
    /// # Errors
    /// [`LoadError::Read`].
    fn size<'a>(&'a self, file: &'a str) -> BoxFuture<'a, Result<Option<u64>, LoadError>>;

    /// Names of the files, where the source can tell.
    fn list(&self) -> Option<Vec<String>> {
        None
    }

    /// All tensors, where the source knows them without `model.safetensors`.
    fn tensors(&self) -> Option<&TensorTable> {
        None
    }
}

/// A whole file of at most `limit` bytes; `None` if there is no such file.
///
/// # Errors
/// A larger file, and those of the source.
pub async fn read_whole(
    source: &dyn ByteSource,
    file: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, LoadError> {
    let Some(got) = source.size(file).await? else { return Ok(None) };
    if got > limit {
        return Err(LoadError::TooLarge { file: file.to_owned(), got, limit });
    }
    source.read(file, 0..got).await.map(Some)
}

/// Files in memory: embedded into the program, or dropped onto a page.
#[derive(Clone, Default)]
pub struct MemorySource {
    files: BTreeMap<String, Cow<'static, [u8]>>,
}

impl Debug for MemorySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.files.iter().map(|(name, bytes)| (name, bytes.len()))).finish()
    }
}

impl MemorySource {
    /// No files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file, in place of one of that name.
    #[must_use]
    pub fn with(mut self, file: impl Into<String>, bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        self.files.insert(file.into(), bytes.into());
        self
    }

    fn slice(&self, file: &str, range: Range<u64>) -> Result<Vec<u8>, LoadError> {
        let bytes = self.files.get(file).ok_or_else(|| LoadError::NoFile { file: file.to_owned() })?;
        let inside = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        inside.and_then(|(a, b)| bytes.get(a..b)).map(<[u8]>::to_vec).ok_or_else(|| LoadError::Truncated {
            file: file.to_owned(),
            got: bytes.len() as u64,
            want: range.end,
        })
    }
}

impl From<BTreeMap<String, Cow<'static, [u8]>>> for MemorySource {
    fn from(files: BTreeMap<String, Cow<'static, [u8]>>) -> Self {
        Self { files }
    }
}

impl ByteSource for MemorySource {
    fn read<'a>(&'a self, file: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Vec<u8>, LoadError>> {
        Box::pin(std::future::ready(self.slice(file, range)))
    }

    fn size<'a>(&'a self, file: &'a str) -> BoxFuture<'a, Result<Option<u64>, LoadError>> {
        Box::pin(std::future::ready(Ok(self.files.get(file).map(|bytes| bytes.len() as u64))))
    }

    fn list(&self) -> Option<Vec<String>> {
        Some(self.files.keys().cloned().collect())
    }
}

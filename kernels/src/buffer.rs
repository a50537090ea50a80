//! Handles to GPU memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A range of a GPU buffer. Clones share the memory; the last one frees it.
#[derive(Clone, Debug)]
pub struct Buffer {
    raw: Arc<Raw>,
    offset: u64,
    size: u64,
}

#[derive(Debug)]
struct Raw {
    buffer: wgpu::Buffer,
    /// Bytes, also of one without memory.
    bytes: u64,
    /// Grids may come from it; also of one without memory.
    indirect: bool,
    id: u64,
    graveyard: Arc<Mutex<Vec<u64>>>,
    /// Others may hold the wgpu buffer.
    shared: AtomicBool,
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A browser would keep the memory until its garbage collector comes round, which knows nothing of GPU memory.
        // Work that was submitted still runs.
        if !*self.shared.get_mut() {
            self.buffer.destroy();
        }
        if let Ok(mut dead) = self.graveyard.lock() {
            dead.push(self.id);
        }
    }
}

/// Identity of a bound range: buffer, offset, bytes.
pub(crate) type RangeId = (u64, u64, u64);

impl Buffer {
    /// A buffer of the caller's.
    pub(crate) fn new(buffer: wgpu::Buffer, id: u64, graveyard: Arc<Mutex<Vec<u64>>>) -> Self {
        Self::with(buffer, id, graveyard, true)
    }

    /// A buffer that nobody else knows.
    pub(crate) fn owned(buffer: wgpu::Buffer, id: u64, graveyard: Arc<Mutex<Vec<u64>>>) -> Self {
        Self::with(buffer, id, graveyard, false)
    }

    /// A buffer of a size that has no memory of its own: not to be bound, read or written.
    pub(crate) fn hollow(
        &self,
        id: u64,
        (size, indirect): (u64, bool),
        graveyard: Arc<Mutex<Vec<u64>>>,
    ) -> Self {
        self.share();
        Self::of(self.raw.buffer.clone(), (size, indirect), id, graveyard, true)
    }

    fn with(buffer: wgpu::Buffer, id: u64, graveyard: Arc<Mutex<Vec<u64>>>, shared: bool) -> Self {
        let kind = (buffer.size(), buffer.usage().contains(wgpu::BufferUsages::INDIRECT));
        Self::of(buffer, kind, id, graveyard, shared)
    }

    fn of(
        buffer: wgpu::Buffer,
        (bytes, indirect): (u64, bool),
        id: u64,
        graveyard: Arc<Mutex<Vec<u64>>>,
        shared: bool,
    ) -> Self {
        let raw = Raw { buffer, bytes, indirect, id, graveyard, shared: AtomicBool::new(shared) };
        Self { raw: Arc::new(raw), offset: 0, size: bytes }
    }

    /// Bytes of the range.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether grids of dispatches may come from it.
    pub fn is_indirect(&self) -> bool {
        self.raw.indirect
    }

    /// First byte of the range within the wgpu buffer.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The wgpu buffer behind the range. Once it was asked for, its memory is freed when the last clone of it is gone
    /// too.
    pub fn wgpu(&self) -> &wgpu::Buffer {
        self.share();
        &self.raw.buffer
    }

    /// Others use the memory for longer than there are handles.
    pub(crate) fn share(&self) {
        self.raw.shared.store(true, Ordering::Relaxed);
    }

    /// The same for uses that end before the handle does.
    pub(crate) fn raw(&self) -> &wgpu::Buffer {
        &self.raw.buffer
    }

    /// A part of the range, or `None` if it does not lie inside. Bound ranges must start at multiples of
    /// [`Caps::offset_align`](crate::Caps::offset_align).
    #[must_use]
    pub fn slice(&self, offset: u64, size: u64) -> Option<Self> {
        (offset.checked_add(size)? <= self.size).then(|| Self {
            raw: self.raw.clone(),
            offset: self.offset + offset,
            size,
        })
    }

    /// Whether two ranges are of the same wgpu buffer.
    pub fn same_memory(&self, other: &Self) -> bool {
        self.raw.id == other.raw.id
    }

    /// The smallest range that holds all of these, starts at a multiple of `align` and ends at one of 16 bytes, so that
    /// shaders read all of it by four words; `None` if they are not of one wgpu buffer, if one of them does not start at a
    /// multiple of 16 bytes, if the buffer ends before, or if there are none.
    pub fn around(ranges: &[&Self], align: u64) -> Option<Self> {
        let (first, rest) = ranges.split_first()?;
        let apart = |range: &&Self| !range.same_memory(first);
        if rest.iter().any(apart) || ranges.iter().any(|range| !range.offset.is_multiple_of(16)) {
            return None;
        }
        let start = ranges.iter().map(|range| range.offset).min()? / align * align;
        let end = ranges.iter().map(|range| range.offset + range.size).max()?.checked_next_multiple_of(16)?;
        (end <= first.raw.bytes).then(|| Self { raw: first.raw.clone(), offset: start, size: end - start })
    }

    /// Whether two ranges share a byte.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.same_memory(other)
            && self.offset < other.offset + other.size
            && other.offset < self.offset + self.size
    }

    /// Whether no other handle to the memory exists.
    pub fn is_unique(&self) -> bool {
        Arc::strong_count(&self.raw) == 1
    }

    pub(crate) fn range_id(&self) -> RangeId {
        (self.raw.id, self.offset, self.size)
    }

    pub(crate) fn binding(&self) -> wgpu::BufferBinding<'_> {
        wgpu::BufferBinding {
            buffer: &self.raw.buffer,
            offset: self.offset,
            size: std::num::NonZeroU64::new(self.size),
        }
    }
}

//! Handles to GPU memory.

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
    id: u64,
    graveyard: Arc<Mutex<Vec<u64>>>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Ok(mut dead) = self.graveyard.lock() {
            dead.push(self.id);
        }
    }
}

/// Identity of a bound range: buffer, offset, bytes.
pub(crate) type RangeId = (u64, u64, u64);

impl Buffer {
    pub(crate) fn new(buffer: wgpu::Buffer, id: u64, graveyard: Arc<Mutex<Vec<u64>>>) -> Self {
        let size = buffer.size();
        Self { raw: Arc::new(Raw { buffer, id, graveyard }), offset: 0, size }
    }

    /// Bytes of the range.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// First byte of the range within the wgpu buffer.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The wgpu buffer behind the range.
    pub fn wgpu(&self) -> &wgpu::Buffer {
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

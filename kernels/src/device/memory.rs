//! Buffers: allocating, writing, and those that kernels share.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Gpu;
use super::lock::lock;
use crate::buffer::Buffer;
use crate::error::{GpuError, KernelError};

/// Identity of the next buffer: of all devices, so that no cache can mistake one for another.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Gpu {
    /// A zeroed buffer of at least `bytes` bytes (a multiple of 4, at least 16) for any use by kernels.
    ///
    /// # Errors
    /// Sizes over the device's limit, memory that is exhausted.
    pub fn alloc(&self, bytes: u64) -> Result<Buffer, GpuError> {
        self.alloc_for(bytes, wgpu::BufferUsages::empty())
    }

    /// The same for grids of dispatches too ([`Grid::Indirect`](crate::Grid::Indirect)). Buffers are not for that unless they
    /// are asked to: a browser checks what is in them before each dispatch.
    ///
    /// # Errors
    /// As [`Gpu::alloc`].
    pub fn alloc_indirect(&self, bytes: u64) -> Result<Buffer, GpuError> {
        self.alloc_for(bytes, wgpu::BufferUsages::INDIRECT)
    }

    fn alloc_for(&self, bytes: u64, more: wgpu::BufferUsages) -> Result<Buffer, GpuError> {
        self.watched().failure.lost()?;
        if bytes > self.caps().buffer_bytes {
            return Err(GpuError::BufferTooLarge { bytes, limit: self.caps().buffer_bytes });
        }
        let size = bytes.max(16).next_multiple_of(16);
        if self.is_recording_only() {
            return self.hollow(size, !more.is_empty());
        }
        lock(&self.inner.shared.bind_groups).forget_freed();
        let descriptor = wgpu::BufferDescriptor {
            label: None,
            size,
            usage: wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::COPY_SRC
                | wgpu::BufferUsages::COPY_DST
                | more,
            mapped_at_creation: false,
        };
        let (raw, error) = self
            .watched()
            .scoped(wgpu::ErrorFilter::OutOfMemory, || self.device().create_buffer(&descriptor));
        if let Some(message) = error {
            self.watched().explain()?;
            return Err(GpuError::OutOfMemory { bytes: size, message });
        }
        Ok(self.own(raw))
    }

    /// A buffer without memory: all of them stand before the same 16 bytes.
    fn hollow(&self, size: u64, indirect: bool) -> Result<Buffer, GpuError> {
        let memory = if let Some(memory) = self.inner.dummy.get() {
            memory
        } else {
            let owner = Self::with(self.inner.shared.clone(), self.caps().clone(), false);
            let memory = owner.alloc(16)?;
            self.inner.dummy.get_or_init(|| memory)
        };
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Ok(memory.hollow(id, (size, indirect), self.inner.shared.graveyard.clone()))
    }

    /// A buffer that nobody else knows: the last handle frees its memory.
    fn own(&self, buffer: wgpu::Buffer) -> Buffer {
        self.count(|c| &c.buffers);
        self.count_by(buffer.size(), |c| &c.buffer_bytes);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Buffer::owned(buffer, id, self.inner.shared.graveyard.clone())
    }

    /// Wraps a buffer of the caller's. It needs `STORAGE`, `COPY_SRC`/`COPY_DST` for reading and writing, `INDIRECT` for
    /// grids.
    pub fn adopt(&self, buffer: wgpu::Buffer) -> Buffer {
        self.count(|c| &c.buffers);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Buffer::new(buffer, id, self.inner.shared.graveyard.clone())
    }

    /// A buffer holding `data` (zero-padded to a multiple of 16 bytes).
    ///
    /// # Errors
    /// As [`Gpu::alloc`].
    pub fn upload(&self, data: &[u8]) -> Result<Buffer, GpuError> {
        let buffer = self.alloc(data.len() as u64)?;
        self.write(&buffer, 0, data);
        Ok(buffer)
    }

    /// Writes bytes into a buffer, before everything submitted later. Offset and length are padded to 4 bytes
    /// with zeros at the end.
    pub fn write(&self, buffer: &Buffer, offset: u64, data: &[u8]) {
        if self.is_recording_only() {
            return;
        }
        let whole = data.len() / 4 * 4;
        if whole > 0 {
            self.queue().write_buffer(buffer.raw(), buffer.offset() + offset, &data[..whole]);
        }
        if whole < data.len() {
            let mut tail = [0; 4];
            tail[..data.len() - whole].copy_from_slice(&data[whole..]);
            self.queue().write_buffer(buffer.raw(), buffer.offset() + offset + whole as u64, &tail);
        }
    }

    /// 16 zero bytes, for bindings that a variant does not use.
    ///
    /// # Errors
    /// As [`Gpu::alloc`].
    pub fn dummy(&self) -> Result<Buffer, GpuError> {
        if let Some(buffer) = self.inner.dummy.get() {
            return Ok(buffer.clone());
        }
        let buffer = self.alloc(16)?;
        Ok(self.inner.dummy.get_or_init(|| buffer).clone())
    }

    /// Constants that kernels share, uploaded when they are first asked for.
    pub(crate) fn table(&self, key: Vec<u32>, words: impl FnOnce() -> Vec<u32>) -> Result<Buffer, GpuError> {
        let mut tables = lock(&self.inner.tables);
        if let Some(buffer) = tables.get(&key) {
            return Ok(buffer.clone());
        }
        let buffer = self.upload(bytemuck::cast_slice(&words()))?;
        tables.insert(key, buffer.clone());
        Ok(buffer)
    }

    /// Runs `submit` with the buffer that parameters of immediate submissions go to, of at least `bytes`. One
    /// caller at a time: nobody else writes to it between the caller's write and submission.
    pub(crate) fn with_uniforms<T>(
        &self,
        bytes: u64,
        submit: impl FnOnce(&Buffer) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        let mut slot = lock(&self.inner.uniforms);
        let large_enough = slot.take().filter(|b| b.size() >= bytes);
        let buffer = match large_enough {
            Some(buffer) => buffer,
            None => self.alloc_uniform(bytes.next_power_of_two().max(64 << 10))?,
        };
        submit(slot.insert(buffer))
    }

    pub(crate) fn alloc_uniform(&self, bytes: u64) -> Result<Buffer, GpuError> {
        let (raw, error) = self.watched().scoped(wgpu::ErrorFilter::OutOfMemory, || {
            self.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("params"),
                size: bytes,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        });
        if let Some(message) = error {
            self.watched().explain()?;
            return Err(GpuError::OutOfMemory { bytes, message });
        }
        Ok(self.own(raw))
    }
}

//! Reading buffers back, and waiting for the device.

use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use super::Gpu;
use super::lock::lock;
use crate::buffer::Buffer;
use crate::error::GpuError;

/// Read-backs larger than this do not keep their staging buffer.
const POOLED_STAGING_BYTES: u64 = 16 << 20;
/// Staging buffers kept for the next read-backs.
const POOLED_STAGING_BUFFERS: usize = 16;

impl Gpu {
    /// The contents of a buffer after everything submitted so far.
    ///
    /// # Errors
    /// A lost device, a failed mapping.
    pub async fn read(&self, buffer: &Buffer) -> Result<Vec<u8>, GpuError> {
        self.has_memory()?;
        self.read_later(buffer).wait().await
    }

    /// Starts reading a buffer back; the copy is ordered after everything submitted so far.
    pub fn read_later(&self, buffer: &Buffer) -> PendingRead {
        let bytes = buffer.size();
        let staging = self.take_staging(bytes);
        let mut encoder = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(buffer.raw(), buffer.offset(), &staging, 0, bytes);
        let submission = self.queue().submit([encoder.finish()]);
        self.count(|c| &c.submits);
        let shared = Arc::new(Mutex::new(MapState::default()));
        let state = shared.clone();
        staging.slice(..bytes).map_async(wgpu::MapMode::Read, move |result| {
            finish(&state, result.map_err(|e| e.to_string()));
        });
        PendingRead { gpu: self.clone(), staging: Some(staging), bytes, submission, state: shared }
    }

    fn take_staging(&self, bytes: u64) -> wgpu::Buffer {
        let mut pool = lock(&self.inner.staging);
        let fit = (0..pool.len()).filter(|&i| pool[i].size() >= bytes).min_by_key(|&i| pool[i].size());
        if let Some(i) = fit.filter(|&i| pool[i].size() <= bytes.max(1 << 16) * 4) {
            return pool.swap_remove(i);
        }
        drop(pool);
        self.count(|c| &c.buffers);
        // Large ones are not reused and may be as large as a buffer can be.
        let size = if bytes <= POOLED_STAGING_BYTES { bytes.next_power_of_two().max(256) } else { bytes };
        self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("staging"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    /// Waits until the queue is empty (natively; a browser's event loop does it there).
    pub fn wait_idle(&self) {
        let _ = self.device().poll(wgpu::PollType::wait_indefinitely());
    }

    /// Waits until everything submitted so far is done, natively and in a browser.
    pub async fn idle(&self) {
        if cfg!(target_arch = "wasm32") {
            let shared = Arc::new(Mutex::new(MapState::default()));
            let state = shared.clone();
            self.queue().on_submitted_work_done(move || finish(&state, Ok(())));
            let failure = self.watched().failure.clone();
            std::future::poll_fn(move |cx| {
                let mut state = lock(&shared);
                if state.result.is_some() || failure.loss().is_some() {
                    return Poll::Ready(());
                }
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            })
            .await;
        } else {
            self.wait_idle();
        }
    }
}

#[derive(Debug, Default)]
struct MapState {
    result: Option<Result<(), String>>,
    waker: Option<Waker>,
}

/// Notes a result and wakes who waits for it.
fn finish(state: &Mutex<MapState>, result: Result<(), String>) {
    let waker = {
        let mut state = lock(state);
        state.result = Some(result);
        state.waker.take()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A read-back under way.
#[derive(Debug)]
pub struct PendingRead {
    gpu: Gpu,
    staging: Option<wgpu::Buffer>,
    bytes: u64,
    submission: wgpu::SubmissionIndex,
    state: Arc<Mutex<MapState>>,
}

impl PendingRead {
    /// The bytes, once the device has written them.
    ///
    /// # Errors
    /// A lost device, a failed mapping.
    pub async fn wait(mut self) -> Result<Vec<u8>, GpuError> {
        // Natively this blocks until the copy is done, not until later submissions are; in a browser it returns
        // at once.
        let polled = self
            .gpu
            .device()
            .poll(wgpu::PollType::Wait { submission_index: Some(self.submission.clone()), timeout: None });
        let bytes = self.bytes;
        let state = self.state.clone();
        let failure = self.gpu.watched().failure.clone();
        let result = std::future::poll_fn(move |cx| {
            let mut state = lock(&state);
            if let Some(result) = state.result.take() {
                Poll::Ready(result)
            } else if failure.loss().is_some() {
                Poll::Ready(Err("the device was lost".into()))
            } else if polled.is_err() {
                // Nobody will wake this future: the device has refused to be waited for.
                Poll::Ready(Err("the device cannot be waited for".into()))
            } else {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await;
        self.gpu.check()?;
        if let Err(message) = result {
            self.gpu.watched().explain()?;
            return Err(GpuError::Readback { bytes, message });
        }
        let staging =
            self.staging.take().ok_or(GpuError::Readback { bytes, message: "read twice".into() })?;
        let data = {
            let view = staging.slice(..bytes).get_mapped_range().map_err(|e| {
                self.gpu
                    .watched()
                    .explain()
                    .err()
                    .unwrap_or(GpuError::Readback { bytes, message: e.to_string() })
            })?;
            view.to_vec()
        };
        staging.unmap();
        let mut pool = lock(&self.gpu.inner.staging);
        if staging.size() <= POOLED_STAGING_BYTES && pool.len() < POOLED_STAGING_BUFFERS {
            pool.push(staging);
        } else {
            staging.destroy();
        }
        Ok(data)
    }
}

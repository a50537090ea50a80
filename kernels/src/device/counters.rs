//! Counts of what was made on a device.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of things that must not be made after warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Compiled pipelines.
    pub pipelines: u64,
    /// Bind groups.
    pub bind_groups: u64,
    /// Buffers.
    pub buffers: u64,
    /// Bytes of the buffers that kernels may bind, those that were freed included.
    pub buffer_bytes: u64,
    /// Queue submissions.
    pub submits: u64,
    /// Dispatches encoded.
    pub dispatches: u64,
}

#[derive(Debug, Default)]
pub(crate) struct AtomicCounters {
    pub pipelines: AtomicU64,
    pub bind_groups: AtomicU64,
    pub buffers: AtomicU64,
    pub buffer_bytes: AtomicU64,
    pub submits: AtomicU64,
    pub dispatches: AtomicU64,
}

impl AtomicCounters {
    pub fn read(&self) -> Counters {
        Counters {
            pipelines: self.pipelines.load(Ordering::Relaxed),
            bind_groups: self.bind_groups.load(Ordering::Relaxed),
            buffers: self.buffers.load(Ordering::Relaxed),
            buffer_bytes: self.buffer_bytes.load(Ordering::Relaxed),
            submits: self.submits.load(Ordering::Relaxed),
            dispatches: self.dispatches.load(Ordering::Relaxed),
        }
    }

    pub fn add(&self, n: u64, which: impl Fn(&Self) -> &AtomicU64) {
        which(self).fetch_add(n, Ordering::Relaxed);
    }
}

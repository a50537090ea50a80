//! What needs `unsafe`: an allocator that counts, and the counters that the compiler puts into instrumented code.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
static REFUSED: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, which refuses what is beyond the limit.
struct Counting;

// SAFETY: memory comes from `System` with the caller's own layouts; counting does not touch it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !admit(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        let memory = unsafe { System.alloc(layout) };
        if memory.is_null() {
            LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        }
        memory
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !admit(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        let memory = unsafe { System.alloc_zeroed(layout) };
        if memory.is_null() {
            LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        }
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) };
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let more = size.saturating_sub(layout.size());
        if !admit(more) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        let moved = unsafe { System.realloc(memory, layout, size) };
        let less = if moved.is_null() { more } else { layout.size().saturating_sub(size) };
        LIVE.fetch_sub(less, Ordering::Relaxed);
        moved
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts `size` bytes unless that is beyond the limit.
fn admit(size: usize) -> bool {
    let before = LIVE.fetch_add(size, Ordering::Relaxed);
    if before.saturating_add(size) <= LIMIT.load(Ordering::Relaxed) {
        return true;
    }
    LIVE.fetch_sub(size, Ordering::Relaxed);
    REFUSED.fetch_max(size.max(1), Ordering::Relaxed);
    false
}

/// Allows `bytes` more than what is allocated now.
pub fn limit_memory(bytes: usize) {
    REFUSED.store(0, Ordering::Relaxed);
    LIMIT.store(LIVE.load(Ordering::Relaxed).saturating_add(bytes), Ordering::Relaxed);
}

/// Ends the limit; returns the largest size that was refused under it, 0 if nothing was.
pub fn free_memory() -> usize {
    LIMIT.store(usize::MAX, Ordering::Relaxed);
    REFUSED.swap(0, Ordering::Relaxed)
}

/// Addresses of the first counter and behind the last one, of every instrumented module.
static COUNTERS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Called by instrumented code before `main`, once for each of its modules.
// SAFETY: the name is the one that the compiler's pass calls; nothing else defines it.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    let mut found = COUNTERS.lock().unwrap_or_else(PoisonError::into_inner);
    let range = (start.addr(), stop.addr());
    start.expose_provenance();
    if !found.contains(&range) {
        found.push(range);
    }
}

/// Number of counters; 0 where nothing is instrumented.
pub fn counters() -> usize {
    COUNTERS.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(start, stop)| stop - start).sum()
}

/// Hands every counter that is not 0 to `visit`, with its number, and sets it to 0.
pub fn take_counters(mut visit: impl FnMut(usize, u8)) {
    let found = COUNTERS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut base = 0;
    for &(start, stop) in &*found {
        let len = stop - start;
        let memory = std::ptr::with_exposed_provenance_mut::<u8>(start);
        // SAFETY: the compiler's own array of counters, which lives as long as the program. Code that counts runs in
        // the worker's thread, which is the one that calls this.
        let counters = unsafe { std::slice::from_raw_parts_mut(memory, len) };
        for (i, chunk) in counters.chunks_mut(64).enumerate() {
            if chunk.iter().fold(0, |any, &c| any | c) == 0 {
                continue;
            }
            for (j, counter) in chunk.iter_mut().enumerate().filter(|(_, c)| **c != 0) {
                visit(base + 64 * i + j, *counter);
                *counter = 0;
            }
        }
        base += len;
    }
}

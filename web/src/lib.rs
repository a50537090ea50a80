//! girih in a browser: what the npm package `girih` runs in its worker.
//!
//! One `Engine` is one device. Nothing here blocks; every promise that fails does so with an `Error`
//! whose `code` is one of a small set (`error.rs`). JavaScript's objects are read and written as JSON where they are small
//! and as typed arrays where they are not.
#![cfg(target_arch = "wasm32")]
// JavaScript hands its objects over by value.
#![allow(clippy::needless_pass_by_value)]

mod bench;
mod engine;
mod error;
mod model;
mod session;
mod source;
mod template;
mod tune;
mod value;

use std::cell::RefCell;

use sha2::Digest;
use wasm_bindgen::prelude::wasm_bindgen;

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the message of a panic: the trap that follows has none.
#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|info| {
        LAST_PANIC.with(|last| *last.borrow_mut() = Some(info.to_string()));
    }));
}

/// Message of the panic that has ended this instance; `undefined` while it lives.
#[wasm_bindgen(js_name = lastPanic)]
pub fn last_panic() -> Option<String> {
    LAST_PANIC.with(|last| last.borrow().clone())
}

/// Version of the package.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").into()
}

/// Hash of the text of all shaders, in 16 hexadecimal digits: verdicts about others say nothing about these.
#[wasm_bindgen]
pub fn shaders() -> String {
    format!("{:016x}", girih_kernels::selftest::shaders())
}

/// Bytes of WASM memory. It never shrinks: this is also the peak.
#[wasm_bindgen(js_name = heapBytes)]
pub fn heap_bytes() -> f64 {
    (core::arch::wasm32::memory_size(0) * 65536) as f64
}

/// SHA-256 of data that comes in pieces, which the browser's own cannot do.
#[wasm_bindgen]
#[derive(Debug, Default)]
pub struct Sha256(sha2::Sha256);

#[wasm_bindgen]
impl Sha256 {
    /// Of nothing, so far.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes so far, in 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        use std::fmt::Write as _;
        let digest = self.0.clone().finalize();
        digest.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

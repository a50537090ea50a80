//! What the page calls.

use std::cell::RefCell;
use std::pin::Pin;

use girih_kernels::{Gpu, Tier};
use girih_tests::{files, on_device};
use wasm_bindgen::prelude::wasm_bindgen;

/// Standard output goes nowhere in a browser: what tests print is kept for the page.
macro_rules! println {
    ($($arg:tt)*) => { girih_tests::on_device::log(format!($($arg)*)) };
}

/// The files of `tests/tests` whole: what only their native tests use is idle here.
#[allow(dead_code, unused_imports, missing_docs)]
mod included {
    use super::Test;
    include!(concat!(env!("OUT_DIR"), "/tests.rs"));
    pub const ALL: &[Test] = TESTS;
}

struct Test {
    name: &'static str,
    files: &'static [&'static str],
    run: fn(Gpu) -> Pin<Box<dyn Future<Output = ()>>>,
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the message of a panic, which ends the instance without one.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|info| LAST_PANIC.set(Some(info.to_string()))));
}

/// The message of the panic that ended this instance.
#[wasm_bindgen]
pub fn last_panic() -> Option<String> {
    LAST_PANIC.with_borrow(Clone::clone)
}

/// Names of all tests.
#[wasm_bindgen]
pub fn list() -> Vec<String> {
    included::ALL.iter().map(|test| test.name.to_owned()).collect()
}

fn find(name: &str) -> &'static Test {
    included::ALL.iter().find(|test| test.name == name).unwrap_or_else(|| panic!("no test is called {name}"))
}

/// Paths, below the server's root, of the files that a test reads and that are not here yet.
#[wasm_bindgen]
pub fn files(name: &str) -> Vec<String> {
    let missing = find(name).files.iter().filter(|path| !files::has(path));
    missing.map(|&path| path.to_owned()).collect()
}

/// Puts a file where tests look for it.
#[wasm_bindgen]
pub fn put_file(path: &str, bytes: Vec<u8>) {
    files::put(path, bytes);
}

/// Sets a variable that narrows tests down, `GIRIH_KERNEL` say.
#[wasm_bindgen]
pub fn set_variable(name: &str, value: &str) {
    on_device::set_variable(name, value);
}

/// Lines that tests printed since the last call.
#[wasm_bindgen]
pub fn take_log() -> Vec<String> {
    on_device::take_log()
}

/// Why the test that ran last compared nothing, if it did not.
#[wasm_bindgen]
pub fn take_skipped() -> Option<String> {
    girih_tests::take_skipped()
}

/// Runs a test to its end at a tier. A test that fails ends the instance: see [`last_panic`].
#[wasm_bindgen]
pub async fn run(name: String, tier: String) {
    let tier: Tier = tier.parse().unwrap_or_else(|e| panic!("{e}"));
    on_device::set_tier(tier);
    (find(&name).run)(on_device::shared_gpu().await).await;
}

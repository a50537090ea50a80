//! Tests that cannot compare anything here say so: a test of Rust's harness has no third result.

/// Notes that the test that runs compares nothing, and why: "tint is not installed".
///
/// Natively a line `skipped: NAME: WHY` goes past the harness's capture to standard output; in a browser the page
/// takes it with the outcome, and the driver prints the line. `cargo xtask test` counts the lines.
pub fn skipped(why: &str) {
    #[cfg(target_arch = "wasm32")]
    page::note(why);
    #[cfg(not(target_arch = "wasm32"))]
    {
        let thread = std::thread::current();
        print_line(thread.name().unwrap_or("a test"), why); // the harness names threads after their tests
    }
}

/// Writes the line of a test that skipped.
#[cfg(not(target_arch = "wasm32"))]
pub fn print_line(test: &str, why: &str) {
    use std::io::Write as _;
    // On a line of its own: with one thread the harness has begun the line of the test.
    let _ = writeln!(std::io::stdout().lock(), "\nskipped: {test}: {}", why.replace('\n', " "));
}

#[cfg(target_arch = "wasm32")]
pub use page::take;

#[cfg(target_arch = "wasm32")]
mod page {
    use std::cell::RefCell;

    thread_local! {
        static WHY: RefCell<Option<String>> = const { RefCell::new(None) };
    }

    pub(super) fn note(why: &str) {
        WHY.set(Some(why.to_owned()));
    }

    /// Why the test that ran last compared nothing; `None` if it did.
    pub fn take() -> Option<String> {
        WHY.take()
    }
}

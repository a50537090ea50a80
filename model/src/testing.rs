//! What unit tests share.

use std::task::{Context, Poll, Waker};

/// Runs a future whose sources are ready at once.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
}

/// Notes that the unit test that runs compares nothing, and why: `cargo xtask test` counts the line. It is written past
/// the capture of the harness, which names threads after their tests.
pub fn skipped(why: &str) {
    use std::io::Write as _;
    let thread = std::thread::current();
    let _ = writeln!(std::io::stdout().lock(), "\nskipped: {}: {why}", thread.name().unwrap_or("a test"));
}

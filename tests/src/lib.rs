//! What the cross-crate tests share.

pub mod goldens;

use girih_kernels::{Gpu, Options};

/// The device of the tests: the best adapter, at the tier of `GIRIH_TIER`.
///
/// # Panics
/// Without an adapter: a test run without a device must fail, not pass.
pub fn gpu() -> Gpu {
    pollster::block_on(Gpu::new(Options::default())).expect("an adapter (README says how to get one)")
}

//! Running a test on a device: natively by blocking, in a browser by awaiting.

use girih_kernels::{Gpu, Options};

#[cfg(not(target_arch = "wasm32"))]
pub use native::{gpu, load, run, variable};

/// A device with other options than the tests' own, at the tier of the tests.
///
/// # Panics
/// Without an adapter: a test run without a device must fail, not pass.
pub async fn gpu_with(options: Options) -> Gpu {
    let options = Options { max_tier: options.max_tier.or_else(tier), ..options };
    Gpu::new(options).await.unwrap_or_else(|e| panic!("{e} (README says how to get an adapter)"))
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::sync::Arc;

    use girih_model::checkpoint::source::ByteSource;
    use girih_model::{LoadOptions, Model};

    use super::{Gpu, Options, gpu_with};

    /// The device of the tests: the best adapter, at the tier of `GIRIH_TIER`.
    ///
    /// # Panics
    /// Without an adapter: a test run without a device must fail, not pass.
    pub fn gpu() -> Gpu {
        pollster::block_on(gpu_with(Options::default()))
    }

    /// Loads a checkpoint.
    ///
    /// # Panics
    /// A checkpoint that does not load.
    pub fn load(gpu: &Gpu, source: Arc<dyn ByteSource>, options: LoadOptions) -> Arc<Model> {
        pollster::block_on(Model::load(gpu, source, options, |_| ())).unwrap_or_else(|e| panic!("{e}"))
    }

    /// A variable that narrows a test down: of the environment.
    pub fn variable(name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    /// Runs a test with a new device to its end.
    pub fn run(test: impl AsyncFnOnce(Gpu)) {
        pollster::block_on(test(gpu()));
    }
}

/// `GIRIH_TIER` is read where the device is opened.
#[cfg(not(target_arch = "wasm32"))]
fn tier() -> Option<girih_kernels::Tier> {
    None
}

#[cfg(target_arch = "wasm32")]
use page::tier;
#[cfg(target_arch = "wasm32")]
pub use page::{log, set_tier, set_variable, shared_gpu, take_log, variable};

#[cfg(target_arch = "wasm32")]
mod page {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    use girih_kernels::{Gpu, Options, Tier};

    use super::gpu_with;

    thread_local! {
        static TIER: Cell<Option<Tier>> = const { Cell::new(None) };
        static GPU: RefCell<Option<Gpu>> = const { RefCell::new(None) };
        static VARIABLES: RefCell<BTreeMap<String, String>> = const { RefCell::new(BTreeMap::new()) };
        static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    /// Holds the devices of the tests down to a tier.
    pub fn set_tier(tier: Tier) {
        TIER.set(Some(tier));
    }

    pub(super) fn tier() -> Option<Tier> {
        TIER.get()
    }

    /// Sets what [`variable`] gives.
    pub fn set_variable(name: &str, value: &str) {
        VARIABLES.with_borrow_mut(|variables| variables.insert(name.into(), value.into()));
    }

    /// A variable that narrows a test down: of the page's address.
    pub fn variable(name: &str) -> Option<String> {
        VARIABLES.with_borrow(|variables| variables.get(name).cloned())
    }

    /// The device of the tests: one for all of a WASM instance, which ends with the first failure.
    pub async fn shared_gpu() -> Gpu {
        let open = GPU.with_borrow(Clone::clone);
        if let Some(gpu) = open {
            return gpu;
        }
        let gpu = gpu_with(Options::default()).await;
        GPU.set(Some(gpu.clone()));
        gpu
    }

    /// Notes a line that the page shows if the test fails.
    pub fn log(line: String) {
        LOG.with_borrow_mut(|log| log.push(line));
    }

    /// The lines noted since the last call.
    pub fn take_log() -> Vec<String> {
        LOG.take()
    }
}

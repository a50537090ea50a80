//! What a caller may ask of a device that is opened.

use crate::caps::Tier;

/// How to open a device.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Part of the adapter's name or its index in [`Gpu::adapters`](crate::Gpu::adapters); the most capable one if `None`.
    pub adapter: Option<String>,
    /// Holds the device down to a tier; `GIRIH_TIER` does the same where this is `None`.
    pub max_tier: Option<Tier>,
    /// Holds bindings down to a size, for tests of split tensors.
    pub max_binding_bytes: Option<u64>,
    /// Where compiled pipelines may be kept between runs.
    pub cache_dir: Option<std::path::PathBuf>,
    /// In a browser: asks for the adapter that saves power.
    pub low_power: bool,
}

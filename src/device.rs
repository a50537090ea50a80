//! Opening the device that the global options name.

use std::path::PathBuf;

use girih_kernels::tune::Kept;
use girih_kernels::{Caps, Gpu, Options};

use crate::Global;
use crate::error::Failure;

/// Opens the device, with the variants in force that `girih tune` has found best on it. What a model uses of it is tested
/// when the model is loaded: [`crate::models::load`].
pub async fn open(global: &Global) -> Result<Gpu, Failure> {
    let gpu = Gpu::new(Options {
        adapter: global.adapter.clone(),
        max_tier: global.tier,
        cache_dir: cache_dir(),
        ..Options::default()
    })
    .await?;
    Ok(Kept::open(&gpu, cache_dir().as_deref()).apply(&gpu))
}

/// `GIRIH_CACHE_DIR`, or the platform's cache folder; `None` where there is none.
pub fn cache_dir() -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("GIRIH_CACHE_DIR")
        .or_else(|| var("XDG_CACHE_HOME").map(|p| p.join("girih")))
        .or_else(|| var("LOCALAPPDATA").map(|p| p.join("girih")))
        .or_else(|| var("HOME").map(|p| p.join(".cache").join("girih")))
}

/// `NVIDIA H200 (vulkan, driver 550.1), tier t1`
pub fn describe(caps: &Caps) -> String {
    let id = &caps.adapter;
    format!("{} ({}, {} {}), tier {}", id.name, id.backend, id.driver, id.driver_info, caps.tier)
}

//! Opening the device that the global options name.

use std::path::PathBuf;

use girih_kernels::{Caps, Gpu, Options, selftest};

use crate::Global;
use crate::error::Failure;

/// Opens the device and applies the verdict of its self-test (run once per adapter, driver and version).
pub async fn open(global: &Global) -> Result<Gpu, Failure> {
    let gpu = open_untested(global).await?;
    let verdict = selftest::cached(&gpu, cache_dir().as_deref()).await;
    for mismatch in &verdict.blocked {
        global.note(&format_args!(
            "{mismatch} gives wrong results on this device and is not used (see `girih doctor`)"
        ));
    }
    Ok(if verdict.blocked.is_empty() { gpu } else { gpu.with_caps(selftest::apply(gpu.caps(), &verdict)) })
}

/// Opens the device as it is.
pub async fn open_untested(global: &Global) -> Result<Gpu, Failure> {
    Ok(Gpu::new(Options {
        adapter: global.adapter.clone(),
        max_tier: global.tier,
        cache_dir: cache_dir(),
        ..Options::default()
    })
    .await?)
}

/// `GIRIH_CACHE_DIR`, or the platform's cache folder; `None` where there is none.
pub fn cache_dir() -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("GIRIH_CACHE_DIR")
        .or_else(|| var("XDG_CACHE_HOME").map(|p| p.join("girih")))
        .or_else(|| var("LOCALAPPDATA").map(|p| p.join("girih")))
        .or_else(|| var("HOME").map(|p| p.join(".cache").join("girih")))
}

/// `NVIDIA H200 (vulkan, driver 550.1), tier t3`
pub fn describe(caps: &Caps) -> String {
    let id = &caps.adapter;
    format!("{} ({}, {} {}), tier {}", id.name, id.backend, id.driver, id.driver_info, caps.tier)
}

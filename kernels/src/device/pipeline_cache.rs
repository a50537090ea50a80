//! wgpu's pipeline cache on disk: the one module of girih with `unsafe`.
//!
//! `Device::create_pipeline_cache` is unsafe because a driver may trust the bytes. They are only ever bytes
//! that this module wrote itself, under a name that holds adapter, driver and crate version, sealed with length
//! and checksum ([`sealed`]); anything else is said and left alone.
#![allow(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::caps::AdapterId;
use crate::sealed;

/// An open cache and where it is kept.
#[derive(Debug)]
pub(crate) struct DiskCache {
    raw: wgpu::PipelineCache,
    path: PathBuf,
}

impl DiskCache {
    /// Opens the cache of an adapter in `dir`; `None` if there is no folder or the backend has no cache.
    pub fn open(device: &wgpu::Device, adapter: &AdapterId, dir: Option<&Path>) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let path = dir?.join(format!("pipelines-{:016x}.bin", fingerprint(adapter)));
        let data = sealed::read(&path, "the pipeline cache", "pipelines are compiled anew");
        // SAFETY: `data` was returned by `PipelineCache::get_data` for this adapter, driver and version, and
        // its checksum is intact; with `fallback` the driver discards what it does not know.
        let raw = unsafe {
            device.create_pipeline_cache(&wgpu::PipelineCacheDescriptor {
                label: Some("girih"),
                data: data.as_deref(),
                fallback: true,
            })
        };
        Some(Self { raw, path })
    }

    pub fn raw(&self) -> &wgpu::PipelineCache {
        &self.raw
    }

    /// Writes what the driver has compiled so far.
    pub fn save(&self) {
        let Some(data) = self.raw.get_data().filter(|d| !d.is_empty()) else { return };
        if let Err(error) = sealed::write(&self.path, &data) {
            tracing::warn!("the pipeline cache {} was not saved: {error}", self.path.display());
        }
    }
}

/// Identity of adapter, driver and version: the key of everything remembered about a device.
pub(crate) fn fingerprint(adapter: &AdapterId) -> u64 {
    sealed::hash(format!("{adapter:?} {}", env!("CARGO_PKG_VERSION")).as_bytes())
}

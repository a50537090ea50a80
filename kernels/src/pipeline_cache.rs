//! wgpu's pipeline cache on disk: the one module of girih with `unsafe`.
//!
//! `Device::create_pipeline_cache` is unsafe because a driver may trust the bytes. They are only ever bytes
//! that this module wrote itself, under a name that holds adapter, driver and crate version, with a checksum in
//! front; anything else is ignored.
#![allow(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::caps::AdapterId;

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
        let data = std::fs::read(&path).ok().and_then(|bytes| unseal(&bytes).map(<[u8]>::to_vec));
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

    /// Writes beside the file and renames, so that a full disk leaves the old cache.
    pub fn save(&self) {
        let Some(data) = self.raw.get_data().filter(|d| !d.is_empty()) else { return };
        let part = self.path.with_extension("part");
        let written = self
            .path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&part, seal(&data)))
            .and_then(|()| std::fs::rename(&part, &self.path));
        if let Err(error) = written {
            let _ = std::fs::remove_file(&part);
            tracing::warn!("the pipeline cache {} was not saved: {error}", self.path.display());
        }
    }
}

/// FNV-1a.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// Identity of adapter, driver and version: the key of everything remembered about a device.
pub(crate) fn fingerprint(adapter: &AdapterId) -> u64 {
    hash(format!("{adapter:?} {}", env!("CARGO_PKG_VERSION")).as_bytes())
}

fn seal(data: &[u8]) -> Vec<u8> {
    [&hash(data).to_le_bytes(), data].concat()
}

fn unseal(bytes: &[u8]) -> Option<&[u8]> {
    let (sum, data) = bytes.split_first_chunk::<8>()?;
    (u64::from_le_bytes(*sum) == hash(data)).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_cache_is_ignored() {
        let sealed = seal(b"abc");
        assert_eq!(unseal(&sealed), Some(&b"abc"[..]));
        let mut damaged = sealed.clone();
        damaged[9] ^= 1;
        assert_eq!(unseal(&damaged), None);
        assert_eq!(unseal(&sealed[..7]), None);
    }
}

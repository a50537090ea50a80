//! The device: ours or the caller's. Buffers in, buffers out.

mod bind_groups;
mod caps;
mod counters;
mod failure;
mod lock;
mod memory;
#[cfg(not(target_arch = "wasm32"))]
mod open;
mod options;
mod pipeline_cache;
mod pipelines;
mod read_back;
mod recent;
#[cfg(target_arch = "wasm32")]
mod web;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};

use self::bind_groups::BindGroups;
use self::counters::AtomicCounters;
use self::failure::Watched;
use self::lock::lock;
use self::pipeline_cache::DiskCache;
use self::pipelines::Layout;
#[cfg(target_arch = "wasm32")]
use self::web as open;
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::error::GpuError;

pub use self::counters::Counters;
pub use self::options::Options;
pub(crate) use self::pipeline_cache::fingerprint;
pub(crate) use self::pipelines::{Pipeline, Pipelines, uniform_bytes};
pub use self::read_back::PendingRead;

/// A device with its pipelines and caches. Clones share it.
#[derive(Clone, Debug)]
pub struct Gpu {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Shared,
    caps: Caps,
    /// Buffers have no memory.
    recording_only: bool,
    uniforms: Mutex<Option<Buffer>>,
    staging: Mutex<Vec<wgpu::Buffer>>,
    dummy: OnceLock<Buffer>,
    tables: Mutex<HashMap<Vec<u32>, Buffer>>,
}

/// What all handles to one device have in common.
#[derive(Clone, Debug)]
struct Shared {
    watched: Watched,
    queue: wgpu::Queue,
    bind_groups: Arc<Mutex<BindGroups>>,
    /// Identities of freed buffers: who finds one here drops all its bind groups.
    graveyard: Arc<Mutex<Vec<u64>>>,
    disk: Option<Arc<DiskCache>>,
    /// For texts in the dialect of the capabilities.
    pipelines: Arc<Pipelines>,
}

impl Gpu {
    /// Capabilities of all adapters, in the order in which [`Options::adapter`] counts them.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn adapters() -> Vec<Caps> {
        open::list_adapters().await.iter().map(|a| caps::read_caps(a, &a.limits(), a.features())).collect()
    }

    /// Opens the wanted (or the most capable) adapter with every useful feature and limit it has.
    ///
    /// # Errors
    /// No adapter, none of that name, one that is too small, a driver that refuses.
    pub async fn new(options: Options) -> Result<Self, GpuError> {
        let (adapter, device, queue) = open::open(&options).await?;
        Self::from_wgpu(&adapter, device, queue, options)
    }

    /// Uses a `GPUDevice` that the page owns, with the features that the page asked for: `subgroups` and `shader-f16`
    /// are worth it, and limits as the adapter has them.
    ///
    /// # Errors
    /// As [`Gpu::from_wgpu`]; a browser without WebGPU; a value that is no device.
    #[cfg(target_arch = "wasm32")]
    pub async fn from_web(device: &wasm_bindgen::JsValue, options: Options) -> Result<Self, GpuError> {
        let adapter = web::request_adapter(options.low_power).await?;
        let (adapter, device, queue) = web::wrap(&adapter, device).await?;
        Self::from_wgpu(&adapter, device, queue, options)
    }

    /// Uses a device that the caller owns. Only features and limits that the device was made with are used.
    ///
    /// # Errors
    /// A device that is too small, a tier that it or girih lacks, a `GIRIH_TIER` that names none.
    pub fn from_wgpu(
        adapter: &wgpu::Adapter,
        device: wgpu::Device,
        queue: wgpu::Queue,
        options: Options,
    ) -> Result<Self, GpuError> {
        let Options { max_binding_bytes, max_tier, cache_dir, .. } = options;
        let mut caps = open::caps(adapter, &device);
        let name = || caps.adapter.name.clone();
        let needs: [(&'static str, u64, u64); 3] = [
            ("max_storage_buffers_per_shader_stage", caps.storage_buffers.into(), 8),
            ("max_compute_invocations_per_workgroup", caps.invocations.into(), 128),
            ("max_compute_workgroup_storage_size", caps.workgroup_bytes.into(), 16 << 10),
        ];
        for (what, got, want) in needs {
            if got < want {
                return Err(GpuError::TooSmall { adapter: name(), what, got, want });
            }
        }
        if let Some(bytes) = max_binding_bytes {
            caps.binding_bytes = caps.binding_bytes.min(bytes);
        }
        let tier = match (max_tier, std::env::var_os("GIRIH_TIER").filter(|name| !name.is_empty())) {
            (Some(tier), _) => tier,
            (None, Some(name)) => name.to_string_lossy().parse()?,
            (None, None) => caps.best_tier(),
        };
        if !tier.has_kernels() {
            return Err(GpuError::NoKernels { asked: tier });
        }
        if !caps.supports(tier) {
            return Err(GpuError::NoTier { adapter: name(), asked: tier, best: caps.best_tier() });
        }
        let caps = caps.at_tier(tier);
        let disk = DiskCache::open(&device, &caps.adapter, cache_dir.as_deref()).map(Arc::new);
        let watched = Watched::new(device);
        let pipelines = Arc::new(Pipelines::new(watched.clone(), caps.dialect, disk.clone()));
        let graveyard = Arc::<Mutex<Vec<u64>>>::default();
        let bind_groups = Arc::new(Mutex::new(BindGroups::new(graveyard.clone())));
        Ok(Self::with(Shared { watched, queue, bind_groups, graveyard, disk, pipelines }, caps, false))
    }

    fn with(shared: Shared, caps: Caps, recording_only: bool) -> Self {
        let inner = Inner {
            shared,
            caps,
            recording_only,
            uniforms: Mutex::default(),
            staging: Mutex::default(),
            dummy: OnceLock::new(),
            tables: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// What the device can do.
    pub fn caps(&self) -> &Caps {
        &self.inner.caps
    }

    /// The same device with other capabilities in force: a lower tier, a block list. Pipelines are shared unless others
    /// compile them.
    #[must_use]
    pub fn with_caps(&self, caps: Caps) -> Self {
        let mut shared = self.inner.shared.clone();
        if caps.dialect != self.caps().dialect {
            let pipelines = Pipelines::new(shared.watched.clone(), caps.dialect, shared.disk.clone());
            shared.pipelines = Arc::new(pipelines);
        }
        Self::with(shared, caps, self.inner.recording_only)
    }

    /// The same device for recordings that are looked at and never run: buffers have sizes and no memory, what is
    /// written to them is dropped, and running or reading anything is an error.
    #[must_use]
    pub fn recording_only(&self) -> Self {
        Self::with(self.inner.shared.clone(), self.caps().clone(), true)
    }

    /// Whether buffers of this handle have no memory.
    pub fn is_recording_only(&self) -> bool {
        self.inner.recording_only
    }

    /// Refuses to run or read what has no memory.
    pub(crate) fn has_memory(&self) -> Result<(), GpuError> {
        if self.inner.recording_only { Err(GpuError::RecordingOnly) } else { Ok(()) }
    }

    /// The wgpu device.
    pub fn device(&self) -> &wgpu::Device {
        &self.inner.shared.watched.device
    }

    /// The wgpu queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.inner.shared.queue
    }

    /// Whether the device is gone, and why.
    pub fn loss(&self) -> Option<&str> {
        self.watched().failure.loss()
    }

    /// Ends the device and frees all memory on it, whoever holds buffers. Everything that uses it afterwards fails
    /// with [`GpuError::Lost`].
    pub fn destroy(&self) {
        self.watched().failure.lose("it was destroyed".into());
        self.device().destroy();
    }

    /// What was made so far.
    pub fn counters(&self) -> Counters {
        self.watched().counters.read()
    }

    /// The first error that the device reported outside of any scope, if one did.
    ///
    /// # Errors
    /// [`GpuError::Lost`] or [`GpuError::Uncaptured`].
    pub fn check(&self) -> Result<(), GpuError> {
        self.watched().check()
    }

    /// Writes the compiled pipelines to disk where the backend can; a full disk is reported, not fatal.
    pub fn save_pipeline_cache(&self) {
        if let Some(disk) = &self.inner.shared.disk {
            disk.save();
        }
    }

    pub(crate) fn watched(&self) -> &Watched {
        &self.inner.shared.watched
    }

    pub(crate) fn pipelines(&self) -> &Pipelines {
        &self.inner.shared.pipelines
    }

    /// A bind group, made when it is first asked for.
    pub(crate) fn bind_group(
        &self,
        layout: &Layout,
        uniforms: &Buffer,
        buffers: &[Buffer],
    ) -> wgpu::BindGroup {
        lock(&self.inner.shared.bind_groups).get(self.watched(), layout, uniforms, buffers)
    }

    pub(crate) fn count(&self, which: impl Fn(&AtomicCounters) -> &AtomicU64) {
        self.count_by(1, which);
    }

    pub(crate) fn count_by(&self, n: u64, which: impl Fn(&AtomicCounters) -> &AtomicU64) {
        self.watched().counters.add(n, which);
    }
}

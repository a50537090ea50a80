//! The device: ours or the caller's. Buffers in, buffers out.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};

use crate::buffer::{Buffer, RangeId};
use crate::caps::{AdapterId, Caps, MatrixShape, Tier};
use crate::error::{GpuError, KernelError};
use crate::pipeline::{LayoutKey, Pipelines, lock};
use girih_shaders::Dialect;

#[cfg(target_arch = "wasm32")]
#[path = "web.rs"]
mod web;

/// How to open a device.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Part of the adapter's name or its index in [`Gpu::adapters`]; the most capable one if `None`.
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

/// Counts of things that must not be made after warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Compiled pipelines.
    pub pipelines: u64,
    /// Bind groups.
    pub bind_groups: u64,
    /// Buffers.
    pub buffers: u64,
    /// Queue submissions.
    pub submits: u64,
    /// Dispatches encoded.
    pub dispatches: u64,
}

#[derive(Debug, Default)]
pub(crate) struct AtomicCounters {
    pub pipelines: AtomicU64,
    pub bind_groups: AtomicU64,
    pub buffers: AtomicU64,
    pub submits: AtomicU64,
    pub dispatches: AtomicU64,
}

/// A device with its pipelines and caches. Clones share it.
#[derive(Clone, Debug)]
pub struct Gpu {
    inner: Arc<Inner>,
}

/// By layout, uniform buffer, storage buffers.
type BindGroups = HashMap<(LayoutKey, RangeId, Vec<RangeId>), wgpu::BindGroup>;

#[derive(Debug)]
struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    caps: Caps,
    pipelines: Pipelines,
    /// Shared, like the graveyard, by all handles to one device: who finds an id there drops all its entries.
    bind_groups: Arc<Mutex<BindGroups>>,
    graveyard: Arc<Mutex<Vec<u64>>>,
    counters: AtomicCounters,
    uniforms: Mutex<Option<Buffer>>,
    staging: Mutex<Vec<wgpu::Buffer>>,
    dummy: OnceLock<Buffer>,
    tables: Mutex<HashMap<Vec<u32>, Buffer>>,
    failure: Arc<Failure>,
    cache: Option<Arc<crate::pipeline_cache::DiskCache>>,
}

/// Identity of the next buffer: of all devices, so that no cache can mistake one for another.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Read-backs larger than this do not keep their staging buffer.
const POOLED_STAGING_BYTES: u64 = 16 << 20;
/// Staging buffers kept for the next read-backs.
const POOLED_STAGING_BUFFERS: usize = 16;

#[derive(Debug, Default)]
struct Failure {
    /// Why the device is gone.
    lost: OnceLock<String>,
    /// The first error outside of any scope.
    uncaptured: Mutex<Option<GpuError>>,
}

impl Failure {
    fn report(&self, error: GpuError) {
        if self.lost.get().is_some() {
            // A consequence of the loss, which everyone is told about already.
            tracing::debug!("{error}");
            return;
        }
        tracing::error!("{error}");
        lock(&self.uncaptured).get_or_insert(error);
    }
}

#[cfg(not(target_arch = "wasm32"))]
const BACKENDS: wgpu::Backends =
    wgpu::Backends::VULKAN.union(wgpu::Backends::METAL).union(wgpu::Backends::DX12);
#[cfg(target_arch = "wasm32")]
const BACKENDS: wgpu::Backends = wgpu::Backends::BROWSER_WEBGPU;

fn instance() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: BACKENDS,
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    })
}

/// Discrete GPUs first, CPUs last.
#[cfg(not(target_arch = "wasm32"))]
fn rank(kind: wgpu::DeviceType) -> u32 {
    match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

/// All adapters of this machine, the most capable kind first.
#[cfg(not(target_arch = "wasm32"))]
async fn list_adapters() -> Vec<wgpu::Adapter> {
    let mut adapters = instance().enumerate_adapters(BACKENDS).await;
    adapters.sort_by_key(|a| rank(a.get_info().device_type));
    adapters
}

/// Opens the wanted adapter with every useful feature and limit it has.
#[cfg(not(target_arch = "wasm32"))]
async fn open(options: &Options) -> Result<(wgpu::Adapter, wgpu::Device, wgpu::Queue), GpuError> {
    let mut adapters = list_adapters().await;
    if adapters.is_empty() {
        return Err(GpuError::NoAdapter { backends: format!("{BACKENDS:?}") });
    }
    let index = match &options.adapter {
        None => 0,
        Some(wanted) => {
            let names: Vec<String> = adapters.iter().map(|a| a.get_info().name).collect();
            let lower = wanted.to_lowercase();
            wanted
                .parse()
                .ok()
                .filter(|&i: &usize| i < names.len())
                .or_else(|| names.iter().position(|n| n.to_lowercase().contains(&lower)))
                .ok_or_else(|| GpuError::NoSuchAdapter { wanted: wanted.clone(), found: names.join("; ") })?
        }
    };
    let adapter = adapters.swap_remove(index);
    let want = wgpu::Features::SHADER_F16
        | wgpu::Features::SUBGROUP
        | wgpu::Features::TIMESTAMP_QUERY
        | wgpu::Features::PIPELINE_CACHE;
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("girih"),
        required_features: want & adapter.features(),
        required_limits: adapter.limits(),
        ..Default::default()
    };
    let (device, queue) = adapter
        .request_device(&descriptor)
        .await
        .map_err(|e| GpuError::Request { adapter: adapter.get_info().name, message: e.to_string() })?;
    Ok((adapter, device, queue))
}

/// Opens the browser's adapter with every useful feature and limit it has. It is the only one: a name cannot choose.
#[cfg(target_arch = "wasm32")]
async fn open(options: &Options) -> Result<(wgpu::Adapter, wgpu::Device, wgpu::Queue), GpuError> {
    let adapter = web::request_adapter(options.low_power).await?;
    if let Some(wanted) = &options.adapter {
        return Err(GpuError::NoSuchAdapter {
            wanted: wanted.clone(),
            found: web::adapter_facts(&adapter).name,
        });
    }
    let device = web::request_device(&adapter).await?;
    web::wrap(&adapter, &device).await
}

impl Gpu {
    /// Capabilities of all adapters, in the order in which [`Options::adapter`] counts them.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn adapters() -> Vec<Caps> {
        list_adapters().await.iter().map(|a| caps_of(a, &a.limits(), a.features())).collect()
    }

    /// Opens the wanted (or the most capable) adapter with every useful feature and limit it has.
    ///
    /// # Errors
    /// No adapter, none of that name, one that is too small, a driver that refuses.
    pub async fn new(options: Options) -> Result<Self, GpuError> {
        let (adapter, device, queue) = open(&options).await?;
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
    /// A device that is too small, a `GIRIH_TIER` that names no tier.
    pub fn from_wgpu(
        adapter: &wgpu::Adapter,
        device: wgpu::Device,
        queue: wgpu::Queue,
        options: Options,
    ) -> Result<Self, GpuError> {
        let Options { max_binding_bytes, max_tier, cache_dir, .. } = options;
        #[cfg(not(target_arch = "wasm32"))]
        let mut caps = caps_of(adapter, &device.limits(), device.features());
        #[cfg(target_arch = "wasm32")]
        let mut caps = caps_of_web(adapter, &device);
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
        if !caps.supports(tier) {
            return Err(GpuError::NoTier { adapter: name(), asked: tier, best: caps.best_tier() });
        }
        let caps = caps.at_tier(tier);
        let failure = Arc::new(Failure::default());
        let seen = failure.clone();
        #[cfg(not(target_arch = "wasm32"))]
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let message = error.to_string();
            seen.report(match error {
                wgpu::Error::OutOfMemory { .. } => GpuError::Exhausted { message },
                _ => GpuError::Uncaptured(message),
            });
        }));
        #[cfg(target_arch = "wasm32")]
        web::on_uncaptured_error(&device, move |message, out_of_memory| {
            seen.report(if out_of_memory {
                GpuError::Exhausted { message }
            } else {
                GpuError::Uncaptured(message)
            });
        });
        let seen = failure.clone();
        device.set_device_lost_callback(move |reason, message| {
            seen.lost.get_or_init(|| format!("{reason:?}: {message}"));
        });
        let cache = crate::pipeline_cache::DiskCache::open(&device, &caps.adapter, cache_dir.as_deref());
        Ok(Self {
            inner: Arc::new(Inner {
                device,
                queue,
                caps,
                pipelines: Pipelines::default(),
                bind_groups: Arc::default(),
                graveyard: Arc::default(),
                counters: AtomicCounters::default(),
                uniforms: Mutex::default(),
                staging: Mutex::default(),
                dummy: OnceLock::new(),
                tables: Mutex::default(),
                failure,
                cache: cache.map(Arc::new),
            }),
        })
    }

    /// What the device can do.
    pub fn caps(&self) -> &Caps {
        &self.inner.caps
    }

    /// The same device with other capabilities in force (a lower tier, a block list). Pipelines are not shared.
    #[must_use]
    pub fn with_caps(&self, caps: Caps) -> Self {
        let i = &self.inner;
        Self {
            inner: Arc::new(Inner {
                device: i.device.clone(),
                queue: i.queue.clone(),
                caps,
                pipelines: Pipelines::default(),
                bind_groups: i.bind_groups.clone(),
                graveyard: i.graveyard.clone(),
                counters: AtomicCounters::default(),
                uniforms: Mutex::default(),
                staging: Mutex::default(),
                dummy: OnceLock::new(),
                tables: Mutex::default(),
                failure: i.failure.clone(),
                cache: i.cache.clone(),
            }),
        }
    }

    /// The wgpu device.
    pub fn device(&self) -> &wgpu::Device {
        &self.inner.device
    }

    /// The wgpu queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }

    /// Whether the device is gone, and why.
    pub fn loss(&self) -> Option<&str> {
        self.inner.failure.lost.get().map(String::as_str)
    }

    /// Ends the device and frees all memory on it, whoever holds buffers. Everything that uses it afterwards fails
    /// with [`GpuError::Lost`].
    pub fn destroy(&self) {
        self.inner.failure.lost.get_or_init(|| "it was destroyed".into());
        self.device().destroy();
    }

    /// What was made so far.
    pub fn counters(&self) -> Counters {
        let c = &self.inner.counters;
        Counters {
            pipelines: c.pipelines.load(Ordering::Relaxed),
            bind_groups: c.bind_groups.load(Ordering::Relaxed),
            buffers: c.buffers.load(Ordering::Relaxed),
            submits: c.submits.load(Ordering::Relaxed),
            dispatches: c.dispatches.load(Ordering::Relaxed),
        }
    }

    /// A zeroed buffer of at least `bytes` bytes (a multiple of 4, at least 16) for any use by kernels.
    ///
    /// # Errors
    /// Sizes over the device's limit, memory that is exhausted.
    pub fn alloc(&self, bytes: u64) -> Result<Buffer, GpuError> {
        self.lost()?;
        if bytes > self.caps().buffer_bytes {
            return Err(GpuError::BufferTooLarge { bytes, limit: self.caps().buffer_bytes });
        }
        let size = bytes.max(16).next_multiple_of(16);
        self.forget_freed(&mut lock(&self.inner.bind_groups));
        let descriptor = wgpu::BufferDescriptor {
            label: None,
            size,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        let (raw, error) =
            self.scoped(wgpu::ErrorFilter::OutOfMemory, || self.device().create_buffer(&descriptor));
        if let Some(message) = error {
            self.explain()?;
            return Err(GpuError::OutOfMemory { bytes: size, message });
        }
        Ok(self.own(raw))
    }

    /// A buffer that nobody else knows: the last handle frees its memory.
    fn own(&self, buffer: wgpu::Buffer) -> Buffer {
        self.count(|c| &c.buffers);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Buffer::owned(buffer, id, self.inner.graveyard.clone())
    }

    /// Wraps a buffer of the caller's. It needs `STORAGE`, and `COPY_SRC`/`COPY_DST` for reading and writing.
    pub fn adopt(&self, buffer: wgpu::Buffer) -> Buffer {
        self.count(|c| &c.buffers);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Buffer::new(buffer, id, self.inner.graveyard.clone())
    }

    /// A buffer holding `data` (zero-padded to a multiple of 16 bytes).
    ///
    /// # Errors
    /// As [`Gpu::alloc`].
    pub fn upload(&self, data: &[u8]) -> Result<Buffer, GpuError> {
        let buffer = self.alloc(data.len() as u64)?;
        self.write(&buffer, 0, data);
        Ok(buffer)
    }

    /// Writes bytes into a buffer, before everything submitted later. Offset and length are padded to 4 bytes
    /// with zeros at the end.
    pub fn write(&self, buffer: &Buffer, offset: u64, data: &[u8]) {
        let whole = data.len() / 4 * 4;
        if whole > 0 {
            self.queue().write_buffer(buffer.raw(), buffer.offset() + offset, &data[..whole]);
        }
        if whole < data.len() {
            let mut tail = [0; 4];
            tail[..data.len() - whole].copy_from_slice(&data[whole..]);
            self.queue().write_buffer(buffer.raw(), buffer.offset() + offset + whole as u64, &tail);
        }
    }

    /// The contents of a buffer after everything submitted so far.
    ///
    /// # Errors
    /// A lost device, a failed mapping.
    pub async fn read(&self, buffer: &Buffer) -> Result<Vec<u8>, GpuError> {
        self.read_later(buffer).wait().await
    }

    /// Starts reading a buffer back; the copy is ordered after everything submitted so far.
    pub fn read_later(&self, buffer: &Buffer) -> PendingRead {
        let bytes = buffer.size();
        let staging = self.take_staging(bytes);
        let mut encoder = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(buffer.raw(), buffer.offset(), &staging, 0, bytes);
        let submission = self.queue().submit([encoder.finish()]);
        self.count(|c| &c.submits);
        let shared = Arc::new(Mutex::new(MapState::default()));
        let state = shared.clone();
        staging.slice(..bytes).map_async(wgpu::MapMode::Read, move |result| {
            finish(&state, result.map_err(|e| e.to_string()));
        });
        PendingRead { gpu: self.clone(), staging: Some(staging), bytes, submission, state: shared }
    }

    fn take_staging(&self, bytes: u64) -> wgpu::Buffer {
        let mut pool = lock(&self.inner.staging);
        let fit = (0..pool.len()).filter(|&i| pool[i].size() >= bytes).min_by_key(|&i| pool[i].size());
        if let Some(i) = fit.filter(|&i| pool[i].size() <= bytes.max(1 << 16) * 4) {
            return pool.swap_remove(i);
        }
        drop(pool);
        self.count(|c| &c.buffers);
        // Large ones are not reused and may be as large as a buffer can be.
        let size = if bytes <= POOLED_STAGING_BYTES { bytes.next_power_of_two().max(256) } else { bytes };
        self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("staging"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    /// Waits until the queue is empty (natively; a browser's event loop does it there).
    pub fn wait_idle(&self) {
        let _ = self.device().poll(wgpu::PollType::wait_indefinitely());
    }

    /// Waits until everything submitted so far is done, natively and in a browser.
    pub async fn idle(&self) {
        if cfg!(target_arch = "wasm32") {
            let shared = Arc::new(Mutex::new(MapState::default()));
            let state = shared.clone();
            self.queue().on_submitted_work_done(move || finish(&state, Ok(())));
            let failure = self.inner.failure.clone();
            std::future::poll_fn(move |cx| {
                let mut state = lock(&shared);
                if state.result.is_some() || failure.lost.get().is_some() {
                    return Poll::Ready(());
                }
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            })
            .await;
        } else {
            self.wait_idle();
        }
    }

    /// The first error that the device reported outside of any scope, if one did.
    ///
    /// # Errors
    /// [`GpuError::Lost`] or [`GpuError::Uncaptured`].
    pub fn check(&self) -> Result<(), GpuError> {
        self.lost()?;
        let error = lock(&self.inner.failure.uncaptured).clone();
        error.map_or(Ok(()), |error| {
            self.explain()?;
            Err(error)
        })
    }

    fn lost(&self) -> Result<(), GpuError> {
        self.inner.failure.lost.get().map_or(Ok(()), |message| Err(GpuError::Lost(message.clone())))
    }

    /// To be asked when something failed: if the device is gone, that is the error to report, not what failed
    /// because of it.
    pub(crate) fn explain(&self) -> Result<(), GpuError> {
        // wgpu tells of a loss when it is polled, which may be later than the first failure.
        let _ = self.device().poll(wgpu::PollType::Poll);
        self.lost()
    }

    /// [`Gpu::check`] for a trial whose failure is not to condemn what comes after it: an error that is not the
    /// loss of the device is forgotten.
    pub(crate) fn take_error(&self) -> Option<GpuError> {
        let error = self.check().err()?;
        if !matches!(error, GpuError::Lost(_)) {
            lock(&self.inner.failure.uncaptured).take();
        }
        Some(error)
    }

    /// 16 zero bytes, for bindings that a variant does not use.
    ///
    /// # Errors
    /// As [`Gpu::alloc`].
    pub fn dummy(&self) -> Result<Buffer, GpuError> {
        if let Some(buffer) = self.inner.dummy.get() {
            return Ok(buffer.clone());
        }
        let buffer = self.alloc(16)?;
        Ok(self.inner.dummy.get_or_init(|| buffer).clone())
    }

    /// Constants that kernels share, uploaded when they are first asked for.
    pub(crate) fn table(&self, key: Vec<u32>, words: impl FnOnce() -> Vec<u32>) -> Result<Buffer, GpuError> {
        let mut tables = lock(&self.inner.tables);
        if let Some(buffer) = tables.get(&key) {
            return Ok(buffer.clone());
        }
        let buffer = self.upload(bytemuck::cast_slice(&words()))?;
        tables.insert(key, buffer.clone());
        Ok(buffer)
    }

    pub(crate) fn pipelines(&self) -> &Pipelines {
        &self.inner.pipelines
    }

    pub(crate) fn disk_cache(&self) -> Option<&wgpu::PipelineCache> {
        self.inner.cache.as_ref().map(|cache| cache.raw())
    }

    /// Writes the compiled pipelines to disk where the backend can; a full disk is reported, not fatal.
    pub fn save_pipeline_cache(&self) {
        if let Some(cache) = &self.inner.cache {
            cache.save();
        }
    }

    pub(crate) fn count(&self, which: impl Fn(&AtomicCounters) -> &AtomicU64) {
        self.count_by(1, which);
    }

    pub(crate) fn count_by(&self, n: u64, which: impl Fn(&AtomicCounters) -> &AtomicU64) {
        which(&self.inner.counters).fetch_add(n, Ordering::Relaxed);
    }

    /// Runs `make` and returns the validation message it provoked, if any.
    pub(crate) fn validated<T>(&self, make: impl FnOnce() -> T) -> (T, Option<String>) {
        self.scoped(wgpu::ErrorFilter::Validation, make)
    }

    /// Natively error scopes answer at once. In a browser they answer later: there the error reaches
    /// [`Gpu::check`] through the uncaptured-error handler instead.
    fn scoped<T>(&self, filter: wgpu::ErrorFilter, make: impl FnOnce() -> T) -> (T, Option<String>) {
        if cfg!(target_arch = "wasm32") {
            return (make(), None);
        }
        let scope = self.device().push_error_scope(filter);
        let made = make();
        let popped = pin!(scope.pop()).poll(&mut Context::from_waker(Waker::noop()));
        match popped {
            Poll::Ready(error) => (made, error.map(|e| e.to_string())),
            Poll::Pending => (made, None),
        }
    }

    /// Runs `submit` with the buffer that parameters of immediate submissions go to, of at least `bytes`. One
    /// caller at a time: nobody else writes to it between the caller's write and submission.
    pub(crate) fn with_uniforms<T>(
        &self,
        bytes: u64,
        submit: impl FnOnce(&Buffer) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        let mut slot = lock(&self.inner.uniforms);
        let large_enough = slot.take().filter(|b| b.size() >= bytes);
        let buffer = match large_enough {
            Some(buffer) => buffer,
            None => self.alloc_uniform(bytes.next_power_of_two().max(64 << 10))?,
        };
        submit(slot.insert(buffer))
    }

    pub(crate) fn alloc_uniform(&self, bytes: u64) -> Result<Buffer, GpuError> {
        let (raw, error) = self.scoped(wgpu::ErrorFilter::OutOfMemory, || {
            self.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("params"),
                size: bytes,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        });
        if let Some(message) = error {
            self.explain()?;
            return Err(GpuError::OutOfMemory { bytes, message });
        }
        Ok(self.own(raw))
    }

    /// Drops the bind groups of freed buffers; they hold the memory until then.
    fn forget_freed(&self, cache: &mut BindGroups) {
        let dead: HashSet<u64> = std::mem::take(&mut *lock(&self.inner.graveyard)).into_iter().collect();
        if !dead.is_empty() {
            let is_dead = |r: &RangeId| dead.contains(&r.0);
            cache.retain(|(_, u, b), _| !is_dead(u) && !b.iter().any(is_dead));
        }
    }

    /// A cached bind group; entries of freed buffers are dropped first.
    pub(crate) fn bind_group(
        &self,
        layout: &crate::pipeline::Layout,
        uniforms: &Buffer,
        buffers: &[Buffer],
    ) -> wgpu::BindGroup {
        let mut cache = lock(&self.inner.bind_groups);
        self.forget_freed(&mut cache);
        let key = (layout.key.clone(), uniforms.range_id(), buffers.iter().map(Buffer::range_id).collect());
        cache
            .entry(key)
            .or_insert_with(|| {
                self.count(|c| &c.bind_groups);
                let params = wgpu::BufferBinding {
                    buffer: uniforms.raw(),
                    offset: 0,
                    size: std::num::NonZeroU64::new(layout.key.1),
                };
                let mut entries = vec![wgpu::BindGroupEntry {
                    binding: 0,
                    resource: wgpu::BindingResource::Buffer(params),
                }];
                for (i, buffer) in buffers.iter().enumerate() {
                    let resource = wgpu::BindingResource::Buffer(buffer.binding());
                    entries.push(wgpu::BindGroupEntry { binding: i as u32 + 1, resource });
                }
                self.device().create_bind_group(&wgpu::BindGroupDescriptor {
                    label: None,
                    layout: &layout.raw,
                    entries: &entries,
                })
            })
            .clone()
    }
}

#[derive(Debug, Default)]
struct MapState {
    result: Option<Result<(), String>>,
    waker: Option<Waker>,
}

/// Notes a result and wakes who waits for it.
fn finish(state: &Mutex<MapState>, result: Result<(), String>) {
    let waker = {
        let mut state = lock(state);
        state.result = Some(result);
        state.waker.take()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A read-back under way.
#[derive(Debug)]
pub struct PendingRead {
    gpu: Gpu,
    staging: Option<wgpu::Buffer>,
    bytes: u64,
    submission: wgpu::SubmissionIndex,
    state: Arc<Mutex<MapState>>,
}

impl PendingRead {
    /// The bytes, once the device has written them.
    ///
    /// # Errors
    /// A lost device, a failed mapping.
    pub async fn wait(mut self) -> Result<Vec<u8>, GpuError> {
        // Natively this blocks until the copy is done, not until later submissions are; in a browser it returns
        // at once.
        let polled = self
            .gpu
            .device()
            .poll(wgpu::PollType::Wait { submission_index: Some(self.submission.clone()), timeout: None });
        let bytes = self.bytes;
        let state = self.state.clone();
        let failure = self.gpu.inner.failure.clone();
        let result = std::future::poll_fn(move |cx| {
            let mut state = lock(&state);
            if let Some(result) = state.result.take() {
                Poll::Ready(result)
            } else if failure.lost.get().is_some() {
                Poll::Ready(Err("the device was lost".into()))
            } else if polled.is_err() {
                // Nobody will wake this future: the device has refused to be waited for.
                Poll::Ready(Err("the device cannot be waited for".into()))
            } else {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await;
        self.gpu.check()?;
        if let Err(message) = result {
            self.gpu.explain()?;
            return Err(GpuError::Readback { bytes, message });
        }
        let staging =
            self.staging.take().ok_or(GpuError::Readback { bytes, message: "read twice".into() })?;
        let data = {
            let view = staging.slice(..bytes).get_mapped_range().map_err(|e| {
                self.gpu.explain().err().unwrap_or(GpuError::Readback { bytes, message: e.to_string() })
            })?;
            view.to_vec()
        };
        staging.unmap();
        let mut pool = lock(&self.gpu.inner.staging);
        if staging.size() <= POOLED_STAGING_BYTES && pool.len() < POOLED_STAGING_BUFFERS {
            pool.push(staging);
        } else {
            staging.destroy();
        }
        Ok(data)
    }
}

fn caps_of(adapter: &wgpu::Adapter, limits: &wgpu::Limits, features: wgpu::Features) -> Caps {
    let info = adapter.get_info();
    let is_cpu = info.device_type == wgpu::DeviceType::Cpu;
    // Metal has no query: wgpu says 4 to 64. Apple's own GPUs have 32.
    let apple = info.backend == wgpu::Backend::Metal && info.name.starts_with("Apple");
    let size = if apple { (32, 32) } else { (info.subgroup_min_size.max(1), info.subgroup_max_size.max(1)) };
    let mut caps = Caps {
        tier: Tier::Portable,
        is_cpu,
        unified_memory: is_cpu || info.device_type == wgpu::DeviceType::IntegratedGpu,
        subgroup_size: features.contains(wgpu::Features::SUBGROUP).then_some(size).filter(|s| s.0 >= 4),
        f16: features.contains(wgpu::Features::SHADER_F16),
        matrix_shapes: matrix_shapes(adapter),
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        invocations: limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x),
        workgroups: limits.max_compute_workgroups_per_dimension,
        binding_bytes: limits.max_storage_buffer_binding_size / 4 * 4,
        buffer_bytes: limits.max_buffer_size / 16 * 16,
        storage_buffers: limits.max_storage_buffers_per_shader_stage,
        offset_align: limits
            .min_storage_buffer_offset_alignment
            .max(limits.min_uniform_buffer_offset_alignment),
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        dialect: if cfg!(target_arch = "wasm32") { Dialect::Browser } else { Dialect::Naga },
        blocked: std::collections::BTreeSet::new(),
        adapter: AdapterId {
            name: info.name,
            driver: info.driver,
            driver_info: info.driver_info,
            backend: info.backend.to_string(),
            vendor: info.vendor,
            device: info.device,
        },
    };
    caps.tier = caps.best_tier();
    caps
}

/// As [`caps_of`], with what the browser says of the device itself.
#[cfg(target_arch = "wasm32")]
fn caps_of_web(adapter: &wgpu::Adapter, device: &wgpu::Device) -> Caps {
    let mut caps = caps_of(adapter, &device.limits(), device.features());
    if let Some(facts) = web::device_facts(device) {
        caps.subgroup_size = facts.subgroup_size;
        caps.is_cpu = facts.is_cpu;
        caps.unified_memory = facts.is_cpu;
        caps.adapter.name = facts.name;
        caps.dialect = if facts.packed_dot { Dialect::Browser } else { Dialect::BrowserBase };
        caps.tier = caps.best_tier();
    }
    caps
}

fn matrix_shapes(adapter: &wgpu::Adapter) -> Vec<MatrixShape> {
    use wgpu::CooperativeScalarType as Scalar;
    adapter
        .cooperative_matrix_properties()
        .iter()
        .map(|p| MatrixShape {
            mnk: [p.m_size, p.n_size, p.k_size],
            f16_in: p.ab_type == Scalar::F16,
            f32_out: p.cr_type == Scalar::F32,
        })
        .collect()
}

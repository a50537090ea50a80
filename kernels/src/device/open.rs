//! Opening the adapters of a machine.

use std::sync::Arc;

use super::caps::read_caps;
use super::options::Options;
use crate::caps::Caps;
use crate::error::GpuError;

const BACKENDS: wgpu::Backends =
    wgpu::Backends::VULKAN.union(wgpu::Backends::METAL).union(wgpu::Backends::DX12);

/// Discrete GPUs first, CPUs last.
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
pub(super) async fn list_adapters() -> Vec<wgpu::Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: BACKENDS,
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut adapters = instance.enumerate_adapters(BACKENDS).await;
    adapters.sort_by_key(|a| rank(a.get_info().device_type));
    adapters
}

/// Opens the wanted adapter with every useful feature and limit it has.
pub(super) async fn open(options: &Options) -> Result<(wgpu::Adapter, wgpu::Device, wgpu::Queue), GpuError> {
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
        | wgpu::Features::SHADER_INT64
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

/// What an opened device can do.
pub(super) fn caps(adapter: &wgpu::Adapter, device: &wgpu::Device) -> Caps {
    read_caps(adapter, &device.limits(), device.features())
}

/// Calls `seen` with every error of the device that no scope catches, and whether memory is what is short.
pub(super) fn on_uncaptured_error(
    device: &wgpu::Device,
    seen: impl Fn(String, bool) + Send + Sync + 'static,
) {
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        seen(error.to_string(), matches!(error, wgpu::Error::OutOfMemory { .. }));
    }));
}

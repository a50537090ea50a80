//! Reading [`Caps`] from what wgpu says.

use std::collections::BTreeSet;

use girih_shaders::Dialect;

use crate::caps::{AdapterId, Caps, MatrixShape, Tier};
use crate::winners::Winners;

/// What a device of an adapter can do that has these limits and features.
pub(super) fn read_caps(adapter: &wgpu::Adapter, limits: &wgpu::Limits, features: wgpu::Features) -> Caps {
    let info = adapter.get_info();
    let is_cpu = info.device_type == wgpu::DeviceType::Cpu;
    // Metal has no query: wgpu says 4 to 64. Apple's own GPUs have 32.
    let apple = info.backend == wgpu::Backend::Metal && info.name.starts_with("Apple");
    let size = if apple { (32, 32) } else { (info.subgroup_min_size.max(1), info.subgroup_max_size.max(1)) };
    // The adapter may have what the device was not asked for.
    let matrices = features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
    let adapter_id = AdapterId {
        name: info.name,
        driver: info.driver,
        driver_info: info.driver_info,
        backend: info.backend.to_string(),
        vendor: info.vendor,
        device: info.device,
    };
    let mut caps = Caps {
        tier: Tier::Portable,
        is_cpu,
        unified_memory: is_cpu || info.device_type == wgpu::DeviceType::IntegratedGpu,
        subgroup_size: features.contains(wgpu::Features::SUBGROUP).then_some(size).filter(|s| s.0 >= 4),
        f16: features.contains(wgpu::Features::SHADER_F16),
        int64: features.contains(wgpu::Features::SHADER_INT64),
        matrix_shapes: if matrices { matrix_shapes(adapter) } else { Vec::new() },
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
        blocked: BTreeSet::new(),
        tuned: Winners::default(),
        integer_dot: is_cpu || adapter_id.has_integer_dot(),
        few_registers: !is_cpu && adapter_id.has_few_registers(),
        adapter: adapter_id,
    };
    caps.tier = caps.best_tier();
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

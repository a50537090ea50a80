//! Capabilities of real devices, for checking what would run on them without having them.
//!
//! The numbers are approximate: what drivers report through wgpu on the named API, put together from the public
//! tables below and rounded down where drivers differ.
//! - WebGPU: the specification's default limits, and those of its compatibility mode (`GPUSupportedLimits`).
//! - Vulkan: reports of vulkan.gpuinfo.org for `maxComputeSharedMemorySize`, `maxComputeWorkGroupInvocations`,
//!   `maxStorageBufferRange`, `minStorageBufferOffsetAlignment`, `subgroupSize` (min and max of
//!   `VK_EXT_subgroup_size_control`), `maxPerStageDescriptorStorageBuffers`.
//! - Metal: Apple's Metal feature set tables (threadgroup memory, threads per threadgroup, SIMD width).
//! - DX12: 32 KiB of group-shared memory and 1024 threads (the shader model's limits), wave sizes of the vendors.

use girih_kernels::Caps;
use girih_kernels::caps::{AdapterId, MatrixShape};

/// What differs between devices.
struct Device {
    name: &'static str,
    backend: &'static str,
    /// PCI vendor and device; 0 where the name tells.
    pci: [u32; 2],
    subgroup_size: Option<(u32, u32)>,
    f16: bool,
    /// Depth of the cooperative matrices; 0 where there are none.
    matrix: u32,
    workgroup_kib: u32,
    invocations: u32,
    /// Mebibytes of one binding.
    binding_mib: u64,
    storage_buffers: u32,
    offset_align: u32,
    unified_memory: bool,
    is_cpu: bool,
}

const WEBGPU: Device = Device {
    name: "WebGPU default limits",
    backend: "webgpu",
    pci: [0, 0],
    subgroup_size: None,
    f16: false,
    matrix: 0,
    workgroup_kib: 16,
    invocations: 256,
    binding_mib: 128,
    storage_buffers: 8,
    offset_align: 256,
    unified_memory: false,
    is_cpu: false,
};

const VULKAN: Device = Device {
    name: "",
    backend: "vulkan",
    subgroup_size: Some((32, 32)),
    f16: true,
    workgroup_kib: 32,
    invocations: 1024,
    binding_mib: 2047,
    storage_buffers: 64,
    offset_align: 64,
    ..WEBGPU
};

const DEVICES: &[Device] = &[
    WEBGPU,
    Device { name: "WebGPU compatibility mode", invocations: 128, ..WEBGPU },
    Device { name: "WebGPU with subgroups of any size", subgroup_size: Some((4, 128)), f16: true, ..WEBGPU },
    Device {
        name: "Apple M1",
        backend: "metal",
        matrix: 8,
        storage_buffers: 31,
        offset_align: 256,
        unified_memory: true,
        ..VULKAN
    },
    Device {
        name: "Intel UHD 630",
        pci: [0x8086, 0x3e92],
        subgroup_size: Some((8, 32)),
        workgroup_kib: 64,
        unified_memory: true,
        ..VULKAN
    },
    Device {
        name: "Intel Arc A770",
        pci: [0x8086, 0x56a0],
        subgroup_size: Some((8, 32)),
        matrix: 16,
        workgroup_kib: 64,
        ..VULKAN
    },
    Device {
        name: "NVIDIA GeForce GTX 1060 (no f16)",
        pci: [0x10de, 0x1c03],
        f16: false,
        workgroup_kib: 48,
        ..VULKAN
    },
    Device {
        name: "NVIDIA GeForce RTX 4070",
        pci: [0x10de, 0x2786],
        matrix: 16,
        workgroup_kib: 48,
        ..VULKAN
    },
    Device {
        name: "NVIDIA H200",
        pci: [0x10de, 0x2335],
        matrix: 16,
        workgroup_kib: 48,
        offset_align: 16,
        ..VULKAN
    },
    Device {
        name: "AMD Radeon RX 7800 XT",
        pci: [0x1002, 0x747e],
        subgroup_size: Some((32, 64)),
        matrix: 16,
        workgroup_kib: 64,
        ..VULKAN
    },
    Device {
        name: "AMD Radeon RX 580",
        pci: [0x1002, 0x67df],
        backend: "dx12",
        subgroup_size: Some((64, 64)),
        f16: false,
        ..VULKAN
    },
    Device {
        name: "Qualcomm Adreno 740",
        pci: [0x5143, 0x4305_0a01],
        subgroup_size: Some((64, 128)),
        binding_mib: 128,
        storage_buffers: 24,
        unified_memory: true,
        ..VULKAN
    },
    Device {
        name: "Arm Mali-G52",
        pci: [0x13b5, 0x7402_0000],
        subgroup_size: Some((8, 8)),
        invocations: 384,
        binding_mib: 256,
        storage_buffers: 35,
        offset_align: 256,
        unified_memory: true,
        ..VULKAN
    },
    Device {
        name: "Arm Mali-G715",
        pci: [0x13b5, 0xb882_0000],
        subgroup_size: Some((16, 16)),
        matrix: 16,
        unified_memory: true,
        ..VULKAN
    },
    Device {
        name: "Broadcom V3D 7.1 (Raspberry Pi 5)",
        pci: [0x14e4, 0],
        subgroup_size: Some((16, 16)),
        f16: false,
        workgroup_kib: 16,
        invocations: 256,
        binding_mib: 1024,
        storage_buffers: 8,
        unified_memory: true,
        ..VULKAN
    },
    Device {
        name: "SwiftShader",
        subgroup_size: Some((4, 4)),
        f16: false,
        workgroup_kib: 16,
        invocations: 256,
        binding_mib: 1024,
        is_cpu: true,
        unified_memory: true,
        ..VULKAN
    },
    Device {
        name: "llvmpipe (256 bits)",
        subgroup_size: Some((8, 8)),
        binding_mib: 128,
        offset_align: 16,
        is_cpu: true,
        unified_memory: true,
        ..VULKAN
    },
    Device {
        name: "llvmpipe (128 bits)",
        subgroup_size: Some((4, 4)),
        binding_mib: 128,
        offset_align: 16,
        is_cpu: true,
        unified_memory: true,
        ..VULKAN
    },
];

/// All recorded devices, at their best tier.
pub fn recorded() -> Vec<Caps> {
    DEVICES
        .iter()
        .map(|d| {
            let shape = MatrixShape { mnk: [d.matrix; 3], f16_in: true, f32_out: true };
            let [vendor, device] = d.pci;
            let adapter = AdapterId {
                name: d.name.into(),
                backend: d.backend.into(),
                vendor,
                device,
                ..AdapterId::default()
            };
            let mut caps = Caps {
                integer_dot: d.is_cpu || adapter.has_integer_dot(),
                few_registers: !d.is_cpu && adapter.has_few_registers(),
                adapter,
                is_cpu: d.is_cpu,
                unified_memory: d.unified_memory,
                subgroup_size: d.subgroup_size,
                f16: d.f16,
                matrix_shapes: if d.matrix > 0 { vec![shape] } else { Vec::new() },
                workgroup_bytes: d.workgroup_kib << 10,
                invocations: d.invocations,
                binding_bytes: d.binding_mib << 20,
                buffer_bytes: (2 * d.binding_mib).min(2047) << 20,
                storage_buffers: d.storage_buffers,
                offset_align: d.offset_align,
                ..Caps::baseline()
            };
            caps.tier = caps.best_tier();
            caps
        })
        .collect()
}

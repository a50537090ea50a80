//! Opening the first device with the features that wgpu asks for.

use std::ffi::{CStr, c_char};
use std::ptr::null_mut;

use ash::{ext, khr, vk};
use girih_kernels::Caps;
use girih_kernels::caps::{AdapterId, MatrixShape};

use super::text;

/// An open device. It lives as long as the process: nothing is destroyed but pipelines.
pub struct Device {
    // Unloads the library when it is dropped.
    _entry: ash::Entry,
    pub(super) raw: ash::Device,
    pub(super) executables: khr::pipeline_executable_properties::Device,
    /// Driver and version.
    pub driver: String,
    /// Version of Vulkan.
    pub api: u32,
    /// `shaderInt8`.
    pub int8: bool,
    /// `shaderIntegerDotProduct`.
    pub dot: bool,
    /// `robustBufferAccess2`, with which naga leaves checks of buffers to the hardware.
    pub robust2: bool,
    /// What `select` is told.
    pub caps: Caps,
}

/// Features that are asked for and switched on.
#[derive(Default)]
struct Features {
    core: vk::PhysicalDeviceFeatures,
    v11: vk::PhysicalDeviceVulkan11Features<'static>,
    v12: vk::PhysicalDeviceVulkan12Features<'static>,
    v13: vk::PhysicalDeviceVulkan13Features<'static>,
    robust2: vk::PhysicalDeviceRobustness2FeaturesEXT<'static>,
    matrix: vk::PhysicalDeviceCooperativeMatrixFeaturesKHR<'static>,
    executables: vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR<'static>,
}

/// What of [`Features`] there is a query for.
#[derive(Clone, Copy)]
struct Known {
    v13: bool,
    robust2: bool,
    matrix: bool,
}

impl Device {
    /// Opens the first device that the loader finds.
    pub fn open() -> Result<Self, String> {
        // SAFETY: the library is Vulkan's loader, and lives in the device that is returned.
        let entry = unsafe { ash::Entry::load() }.map_err(|e| format!("found no Vulkan loader: {e}"))?;
        let app = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3).application_name(c"wgpu");
        let info = vk::InstanceCreateInfo::default().application_info(&app);
        // SAFETY: what `info` points to lives during the call.
        let instance = unsafe { entry.create_instance(&info, None) }.map_err(|e| format!("instance: {e}"))?;
        // SAFETY: the instance is alive.
        let found = unsafe { instance.enumerate_physical_devices() }.map_err(|e| format!("devices: {e}"))?;
        let physical = *found.first().ok_or("the driver finds no device")?;
        // SAFETY: the device is one of the instance.
        let extensions = unsafe { instance.enumerate_device_extension_properties(physical) }
            .map_err(|e| format!("extensions: {e}"))?;
        let has = |name: &CStr| extensions.iter().any(|e| e.extension_name_as_c_str() == Ok(name));
        if !has(khr::pipeline_executable_properties::NAME) {
            return Err("the driver has no VK_KHR_pipeline_executable_properties".into());
        }

        let (mut driver, mut sizes, mut subgroups) = (
            vk::PhysicalDeviceDriverProperties::default(),
            vk::PhysicalDeviceSubgroupSizeControlProperties::default(),
            vk::PhysicalDeviceSubgroupProperties::default(),
        );
        let mut properties = vk::PhysicalDeviceProperties2::default()
            .push_next(&mut driver)
            .push_next(&mut sizes)
            .push_next(&mut subgroups);
        // SAFETY: the chain holds structures of the core versions that every driver here has.
        unsafe { instance.get_physical_device_properties2(physical, &mut properties) };
        let properties = properties.properties;

        let known = Known {
            v13: properties.api_version >= vk::API_VERSION_1_3,
            robust2: has(ext::robustness2::NAME),
            matrix: has(khr::cooperative_matrix::NAME),
        };
        let mut features = Features::query(&instance, physical, known);
        let raw = features.create_device(&instance, physical, known)?;
        let subgroup_size = if known.v13 {
            (sizes.min_subgroup_size, sizes.max_subgroup_size)
        } else {
            (subgroups.subgroup_size, subgroups.subgroup_size)
        };
        let matrix_shapes =
            if known.matrix { matrix_shapes(&entry, &instance, physical) } else { Vec::new() };
        let driver_info = text(&driver.driver_info);
        let caps = Caps {
            matrix_shapes,
            ..caps(&properties, &text(&driver.driver_name), &driver_info, subgroup_size, &features)
        };
        Ok(Self {
            executables: khr::pipeline_executable_properties::Device::new(&instance, &raw),
            driver: driver_info,
            api: properties.api_version,
            int8: features.v12.shader_int8 != 0,
            dot: features.v13.shader_integer_dot_product != 0,
            robust2: features.robust2.robust_buffer_access2 != 0,
            caps: Caps { tier: caps.best_tier(), ..caps },
            raw,
            _entry: entry,
        })
    }
}

impl Features {
    /// What the device has, of what is switched on for girih.
    fn query(instance: &ash::Instance, physical: vk::PhysicalDevice, known: Known) -> Self {
        let mut all = Self::default();
        let mut chain = vk::PhysicalDeviceFeatures2::default()
            .push_next(&mut all.executables)
            .push_next(&mut all.v11)
            .push_next(&mut all.v12);
        if known.v13 {
            chain = chain.push_next(&mut all.v13);
        }
        if known.robust2 {
            chain = chain.push_next(&mut all.robust2);
        }
        if known.matrix {
            chain = chain.push_next(&mut all.matrix);
        }
        // SAFETY: the chain holds what the version and the extensions of the device define.
        unsafe { instance.get_physical_device_features2(physical, &mut chain) };
        all.core = chain.features;
        // The chain of the query ends here: creating the device makes one of its own.
        for next in [&mut all.executables.p_next, &mut all.v11.p_next, &mut all.v12.p_next] {
            *next = null_mut();
        }
        for next in [&mut all.v13.p_next, &mut all.robust2.p_next, &mut all.matrix.p_next] {
            *next = null_mut();
        }
        // wgpu leaves these off; some drivers refuse them.
        all.robust2.null_descriptor = 0;
        all.v11.protected_memory = 0;
        all.v12.buffer_device_address_capture_replay = 0;
        all.v12.buffer_device_address_multi_device = 0;
        all
    }

    /// The device with these features.
    fn create_device(
        &mut self,
        instance: &ash::Instance,
        physical: vk::PhysicalDevice,
        known: Known,
    ) -> Result<ash::Device, String> {
        let mut names: Vec<*const c_char> = vec![khr::pipeline_executable_properties::NAME.as_ptr()];
        let priorities = [1.0];
        let queues =
            [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&priorities)];
        let mut core = vk::PhysicalDeviceFeatures2::default().features(self.core);
        let mut info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .push_next(&mut core)
            .push_next(&mut self.executables)
            .push_next(&mut self.v11)
            .push_next(&mut self.v12);
        if known.v13 {
            info = info.push_next(&mut self.v13);
        }
        if known.robust2 {
            names.push(ext::robustness2::NAME.as_ptr());
            info = info.push_next(&mut self.robust2);
        }
        if known.matrix {
            names.push(khr::cooperative_matrix::NAME.as_ptr());
            info = info.push_next(&mut self.matrix);
        }
        let info = info.enabled_extension_names(&names);
        // SAFETY: everything in the chain lives during the call, and the device has what is switched on.
        unsafe { instance.create_device(physical, &info, None) }.map_err(|e| format!("device: {e}"))
    }
}

/// What wgpu would tell `select`.
fn caps(
    properties: &vk::PhysicalDeviceProperties,
    driver: &str,
    driver_info: &str,
    subgroup_size: (u32, u32),
    features: &Features,
) -> Caps {
    let limits = &properties.limits;
    let adapter = AdapterId {
        name: text(&properties.device_name),
        driver: driver.into(),
        driver_info: driver_info.into(),
        backend: "vulkan".into(),
        vendor: properties.vendor_id,
        device: properties.device_id,
    };
    Caps {
        integer_dot: adapter.has_integer_dot(),
        few_registers: adapter.has_few_registers(),
        adapter,
        unified_memory: properties.device_type == vk::PhysicalDeviceType::INTEGRATED_GPU,
        subgroup_size: Some(subgroup_size).filter(|size| size.0 >= 4),
        f16: features.v12.shader_float16 != 0,
        workgroup_bytes: limits.max_compute_shared_memory_size,
        invocations: limits.max_compute_work_group_invocations.min(1024),
        workgroups: limits.max_compute_work_group_count[0].min(65535),
        // The shims answer with small heaps: a real device's limits.
        binding_bytes: (2 << 30) - 4,
        buffer_bytes: (2 << 30) - 16,
        storage_buffers: limits.max_per_stage_descriptor_storage_buffers.min(64),
        offset_align: limits
            .min_storage_buffer_offset_alignment
            .max(limits.min_uniform_buffer_offset_alignment) as u32,
        timestamps: true,
        ..Caps::baseline()
    }
}

/// Shapes of matrix multiplications by a subgroup, of those that WGSL can name.
fn matrix_shapes(
    entry: &ash::Entry,
    instance: &ash::Instance,
    physical: vk::PhysicalDevice,
) -> Vec<MatrixShape> {
    let functions = khr::cooperative_matrix::Instance::new(entry, instance);
    // SAFETY: the device has the extension.
    let found = unsafe { functions.get_physical_device_cooperative_matrix_properties(physical) };
    let float = [vk::ComponentTypeKHR::FLOAT16, vk::ComponentTypeKHR::FLOAT32];
    found
        .unwrap_or_default()
        .iter()
        .filter(|p| p.scope == vk::ScopeKHR::SUBGROUP && p.a_type == p.b_type && p.c_type == p.result_type)
        .filter(|p| float.contains(&p.a_type) && float.contains(&p.c_type))
        .map(|p| MatrixShape {
            mnk: [p.m_size, p.n_size, p.k_size],
            f16_in: p.a_type == vk::ComponentTypeKHR::FLOAT16,
            f32_out: p.c_type == vk::ComponentTypeKHR::FLOAT32,
        })
        .collect()
}

//! WGSL to SPIR-V with the options that wgpu-hal 30 gives naga for Vulkan (`adapter.rs`, `device.rs`), and with those of
//! the pipelines of girih.

use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ValidationFlags, Validator};

use crate::vulkan::Device;

/// A buffer of a shader.
pub struct Binding {
    /// `@binding(N)`.
    pub number: u32,
    /// Uniform, or storage.
    pub uniform: bool,
}

/// SPIR-V and what it binds.
pub struct Shader {
    /// SPIR-V.
    pub words: Vec<u32>,
    /// Buffers of group 0.
    pub bindings: Vec<Binding>,
}

/// Compiles a text for a device.
pub fn compile(wgsl: &str, device: &Device) -> Result<Shader, String> {
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|e| e.emit_to_string(wgsl))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(&module)
        .map_err(|e| e.emit_to_string(wgsl))?;
    let buffer = |variable: &naga::GlobalVariable| {
        let number = variable.binding.as_ref()?.binding;
        Some(Binding { number, uniform: variable.space == naga::AddressSpace::Uniform })
    };
    let bindings = module.global_variables.iter().filter_map(|(_, variable)| buffer(variable)).collect();
    let entry = spv::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: "main".into() };
    let words = spv::write_vec(&module, &info, &options(device), Some(&entry)).map_err(|e| e.to_string())?;
    Ok(Shader { words, bindings })
}

fn options(device: &Device) -> spv::Options<'static> {
    // With robustBufferAccess2 the driver checks buffers.
    let buffer = if device.robust2 { BoundsCheckPolicy::Unchecked } else { BoundsCheckPolicy::Restrict };
    spv::Options {
        lang_version: if device.api >= ash::vk::API_VERSION_1_3 { (1, 6) } else { (1, 5) },
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        capabilities: Some(capabilities(device).into_iter().collect()),
        bounds_check_policies: BoundsCheckPolicies {
            index: BoundsCheckPolicy::Restrict,
            buffer,
            image_load: BoundsCheckPolicy::Restrict,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: true,
        emit_int_div_checks: true,
        use_storage_input_output_16: false,
        ..spv::Options::default()
    }
}

fn capabilities(device: &Device) -> Vec<spv::Capability> {
    use spv::Capability as C;
    let mut all = vec![
        C::Shader,
        C::Matrix,
        C::Sampled1D,
        C::Image1D,
        C::ImageQuery,
        C::DerivativeControl,
        C::StorageImageExtendedFormats,
        C::GroupNonUniform,
        C::GroupNonUniformVote,
        C::GroupNonUniformArithmetic,
        C::GroupNonUniformBallot,
        C::GroupNonUniformShuffle,
        C::GroupNonUniformShuffleRelative,
        C::GroupNonUniformQuad,
        C::CooperativeMatrixKHR,
        C::VulkanMemoryModel,
    ];
    if device.caps.f16 {
        all.push(C::Float16);
    }
    if device.dot {
        all.extend([
            C::DotProductInputAllKHR,
            C::DotProductInput4x8BitKHR,
            C::DotProductInput4x8BitPackedKHR,
            C::DotProductKHR,
        ]);
    }
    if device.int8 {
        all.push(C::Int8);
    }
    all
}

//! Compute pipelines, and what the driver says of what it compiled.

use ash::vk;

use super::{Device, text};
use crate::spirv::Shader;

/// One program that a pipeline was compiled to.
pub struct Executable {
    /// Lanes of a subgroup.
    pub subgroup: u32,
    /// Named numbers.
    pub statistics: Vec<(String, String)>,
    /// Named listings.
    pub listings: Vec<(String, String)>,
}

/// What a pipeline is made of; goes with it.
struct Parts<'a> {
    device: &'a ash::Device,
    module: vk::ShaderModule,
    set: vk::DescriptorSetLayout,
    layout: vk::PipelineLayout,
    pipeline: vk::Pipeline,
}

impl Drop for Parts<'_> {
    fn drop(&mut self) {
        // SAFETY: these are of the device, and in use nowhere; null handles are allowed.
        unsafe {
            self.device.destroy_pipeline(self.pipeline, None);
            self.device.destroy_pipeline_layout(self.layout, None);
            self.device.destroy_descriptor_set_layout(self.set, None);
            self.device.destroy_shader_module(self.module, None);
        }
    }
}

impl Device {
    /// Compiles a shader as wgpu has it compiled: of any subgroup size.
    pub fn compile(&self, shader: &Shader) -> Result<Vec<Executable>, String> {
        let parts = self.pipeline(shader)?;
        let info = vk::PipelineInfoKHR::default().pipeline(parts.pipeline);
        // SAFETY: the pipeline is alive and was made to be asked.
        let found = unsafe { self.executables.get_pipeline_executable_properties(&info) }
            .map_err(|e| format!("executables: {e}"))?;
        let mut executables = Vec::new();
        for (index, properties) in (0..).zip(&found) {
            let info =
                vk::PipelineExecutableInfoKHR::default().pipeline(parts.pipeline).executable_index(index);
            executables.push(Executable {
                subgroup: properties.subgroup_size,
                statistics: self.statistics(&info)?,
                listings: self.listings(&info),
            });
        }
        Ok(executables)
    }

    fn pipeline(&self, shader: &Shader) -> Result<Parts<'_>, String> {
        let device = &self.raw;
        let mut parts = Parts {
            device,
            module: vk::ShaderModule::null(),
            set: vk::DescriptorSetLayout::null(),
            layout: vk::PipelineLayout::null(),
            pipeline: vk::Pipeline::null(),
        };
        let bindings: Vec<_> = shader
            .bindings
            .iter()
            .map(|binding| {
                let kind = if binding.uniform {
                    vk::DescriptorType::UNIFORM_BUFFER_DYNAMIC
                } else {
                    vk::DescriptorType::STORAGE_BUFFER
                };
                vk::DescriptorSetLayoutBinding::default()
                    .binding(binding.number)
                    .descriptor_count(1)
                    .descriptor_type(kind)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
            })
            .collect();
        let module = vk::ShaderModuleCreateInfo::default().code(&shader.words);
        let set = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: naga has validated the module; what the structures point to lives during the calls.
        unsafe {
            parts.module =
                device.create_shader_module(&module, None).map_err(|e| format!("shader module: {e}"))?;
            parts.set =
                device.create_descriptor_set_layout(&set, None).map_err(|e| format!("bind group: {e}"))?;
            let sets = [parts.set];
            let layout = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
            parts.layout =
                device.create_pipeline_layout(&layout, None).map_err(|e| format!("pipeline layout: {e}"))?;
        }
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE)
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(parts.module)
            .name(c"main");
        let flags = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
            | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
        let infos = [vk::ComputePipelineCreateInfo::default().flags(flags).layout(parts.layout).stage(stage)];
        // SAFETY: module and layout are alive.
        let made = unsafe { device.create_compute_pipelines(vk::PipelineCache::null(), &infos, None) };
        parts.pipeline = made.map_err(|(_, e)| format!("pipeline: {e}"))?[0];
        Ok(parts)
    }

    fn statistics(&self, info: &vk::PipelineExecutableInfoKHR<'_>) -> Result<Vec<(String, String)>, String> {
        use vk::PipelineExecutableStatisticFormatKHR as Format;
        // SAFETY: `info` names an executable of a live pipeline.
        let found = unsafe { self.executables.get_pipeline_executable_statistics(info) }
            .map_err(|e| format!("statistics: {e}"))?;
        let value = |s: &vk::PipelineExecutableStatisticKHR<'_>| {
            // SAFETY: the driver says which field of the union it has set.
            unsafe {
                match s.format {
                    Format::BOOL32 => u32::from(s.value.b32 != 0).to_string(),
                    Format::INT64 => s.value.i64.to_string(),
                    Format::UINT64 => s.value.u64.to_string(),
                    _ => s.value.f64.to_string(),
                }
            }
        };
        Ok(found.iter().map(|s| (text(&s.name), value(s))).collect())
    }

    /// The listings of an executable; none where the driver keeps none.
    fn listings(&self, info: &vk::PipelineExecutableInfoKHR<'_>) -> Vec<(String, String)> {
        let get = self.executables.fp().get_pipeline_executable_internal_representations_khr;
        let (device, mut count) = (self.raw.handle(), 0);
        // SAFETY: without an array the driver only counts.
        if unsafe { get(device, info, &raw mut count, std::ptr::null_mut()) } != vk::Result::SUCCESS {
            return Vec::new();
        }
        let mut found = vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
        // SAFETY: the array has the length that the driver gave; without memory it fills in sizes.
        let sized = unsafe { get(device, info, &raw mut count, found.as_mut_ptr()) };
        let mut bytes: Vec<Vec<u8>> = found.iter().map(|r| vec![0; r.data_size]).collect();
        for (listing, bytes) in found.iter_mut().zip(&mut bytes) {
            listing.p_data = bytes.as_mut_ptr().cast();
        }
        // SAFETY: every listing has memory of the size that the driver gave.
        let filled = unsafe { get(device, info, &raw mut count, found.as_mut_ptr()) };
        if sized != vk::Result::SUCCESS || filled != vk::Result::SUCCESS {
            return Vec::new();
        }
        let text_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
        found.iter().zip(&bytes).map(|(listing, bytes)| (text(&listing.name), text_of(bytes))).collect()
    }
}

//! (file, selection) -> compiled pipeline; access pattern -> bind group layout. Both are made once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use girih_shaders::{Dialect, Selection, compose};

use super::failure::Watched;
use super::lock::lock;
use super::pipeline_cache::DiskCache;
use crate::choice::Choice;
use crate::error::KernelError;
use crate::spec::{Access, KernelSpec};

/// A pipeline and the layout of its only bind group.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub raw: wgpu::ComputePipeline,
    pub layout: Arc<Layout>,
}

#[derive(Debug)]
pub(crate) struct Layout {
    pub key: LayoutKey,
    pub raw: wgpu::BindGroupLayout,
    pipeline: wgpu::PipelineLayout,
}

/// Access of each storage binding, bytes of the parameters.
pub(crate) type LayoutKey = (Vec<Access>, u64);

/// The pipelines of a device.
#[derive(Debug)]
pub(crate) struct Pipelines {
    on: Watched,
    dialect: Dialect,
    disk: Option<Arc<DiskCache>>,
    layouts: Mutex<HashMap<LayoutKey, Arc<Layout>>>,
    compiled: Mutex<HashMap<(&'static str, Selection), Arc<Pipeline>>>,
}

/// Uniform bindings are multiples of 16 bytes.
pub(crate) fn uniform_bytes(params_bytes: usize) -> u64 {
    (params_bytes as u64).next_multiple_of(16)
}

impl Pipelines {
    /// Without entries. Texts are in a dialect of who compiles them; what the driver makes of them is kept on disk
    /// where that is possible.
    pub fn new(on: Watched, dialect: Dialect, disk: Option<Arc<DiskCache>>) -> Self {
        Self { on, dialect, disk, layouts: Mutex::default(), compiled: Mutex::default() }
    }

    /// The pipeline of a choice, compiled on first use.
    pub fn get(&self, spec: &KernelSpec, choice: &Choice) -> Result<Arc<Pipeline>, KernelError> {
        let key = (choice.file, choice.selection.clone());
        if let Some(found) = lock(&self.compiled).get(&key) {
            return Ok(found.clone());
        }
        let kernel = spec.name;
        let composed = compose(choice.file, &choice.selection, self.dialect)
            .map_err(|source| KernelError::Compose { kernel, source })?;
        let layout = self.layout(spec);
        let label = format!("{kernel}/{}", choice.variant);
        let start = web_time::Instant::now();
        let (raw, error) = self.on.scoped(wgpu::ErrorFilter::Validation, || {
            let module = self.on.device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(&label),
                source: wgpu::ShaderSource::Wgsl(composed.wgsl.as_str().into()),
            });
            self.on.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&label),
                layout: Some(&layout.pipeline),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[],
                    // Every kernel writes workgroup memory before it reads it.
                    zero_initialize_workgroup_memory: false,
                },
                cache: self.disk.as_ref().map(|disk| disk.raw()),
            })
        });
        if let Some(message) = error {
            self.on.explain()?;
            let selection = choice.selection.to_string();
            return Err(KernelError::Refused {
                kernel,
                selection,
                message: with_origins(&message, &composed),
            });
        }
        self.on.counters.add(1, |c| &c.pipelines);
        let seconds = start.elapsed().as_secs_f64();
        tracing::debug!("{label} [{}]: pipeline made in {:.1} ms", choice.selection, 1e3 * seconds);
        let pipeline = Arc::new(Pipeline { raw, layout });
        lock(&self.compiled).insert(key, pipeline.clone());
        Ok(pipeline)
    }

    /// Whether the pipeline of a choice is compiled.
    pub fn knows(&self, choice: &Choice) -> bool {
        lock(&self.compiled).contains_key(&(choice.file, choice.selection.clone()))
    }

    fn layout(&self, spec: &KernelSpec) -> Arc<Layout> {
        let key: LayoutKey =
            (spec.bindings.iter().map(|b| b.access).collect(), uniform_bytes(spec.params_bytes));
        if let Some(found) = lock(&self.layouts).get(&key) {
            return found.clone();
        }
        let entry = |binding, ty, has_dynamic_offset, min_binding_size| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size },
            count: None,
        };
        let mut entries =
            vec![entry(0, wgpu::BufferBindingType::Uniform, true, std::num::NonZeroU64::new(key.1))];
        for (i, access) in key.0.iter().enumerate() {
            let ty = wgpu::BufferBindingType::Storage { read_only: *access == Access::Read };
            entries.push(entry(i as u32 + 1, ty, false, None));
        }
        let raw = self.on.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(spec.name),
            entries: &entries,
        });
        let pipeline = self.on.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(spec.name),
            bind_group_layouts: &[Some(&raw)],
            immediate_size: 0,
        });
        let layout = Arc::new(Layout { key: key.clone(), raw, pipeline });
        lock(&self.layouts).insert(key, layout.clone());
        layout
    }
}

/// Adds `file:line` of ours to every `wgsl:LINE:COL` of a message.
fn with_origins(message: &str, composed: &girih_shaders::Composed) -> String {
    let mut out = message.to_owned();
    for (at, _) in message.match_indices("wgsl:") {
        let digits: String = message[at + 5..].chars().take_while(char::is_ascii_digit).collect();
        if let Some(origin) = digits.parse().ok().and_then(|line| composed.origin(line)) {
            out.push_str("\n  at ");
            out.push_str(&origin);
        }
    }
    out
}

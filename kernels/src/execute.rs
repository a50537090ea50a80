//! Runs recordings: at once, many times as a plan, with timestamps, or on the CPU twins.

use crate::buffer::Buffer;
use crate::device::{Gpu, Pipeline, uniform_bytes};
use crate::error::{GpuError, KernelError};

use crate::choice::Choice;
use crate::grid::Grid;
use crate::recorder::{self, Command, Dispatch, Recorder};
use crate::spec::{Access, KernelSpec};
use crate::twin::TwinCall;
use std::ops::Range;
use std::sync::Arc;

/// A recording made ready: pipelines compiled, parameters on the device, bind groups made. Replaying it creates
/// nothing; what changes between replays lives in the buffers it reads.
#[derive(Debug)]
pub struct Plan {
    steps: Vec<Step>,
    labels: Vec<String>,
    /// What was recorded; keeps every bound range alive and out of any pool.
    commands: Vec<Command>,
    /// Parameters of all dispatches; bind groups do not keep a buffer of ours alive.
    params: Buffer,
}

#[derive(Debug)]
enum Step {
    Dispatch { pipeline: Arc<Pipeline>, bind_group: wgpu::BindGroup, offset: u32, grid: Grid },
    Copy { src: Buffer, dst: Buffer },
}

/// Time of one dispatch.
#[derive(Clone, Debug)]
pub struct Timing {
    /// `kernel/variant`.
    pub label: String,
    /// Constants and parts.
    pub selection: String,
    /// Workgroups, at most.
    pub grid: [u32; 3],
    /// Bytes that were moved: those of all bound ranges; `None` where a kernel moves a part of one.
    pub moved_bytes: Option<u64>,
    /// Nanoseconds between the timestamps around it.
    pub nanoseconds: f64,
}

impl Plan {
    /// `kernel/variant` of every dispatch.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What was recorded.
    pub fn dispatches(&self) -> impl Iterator<Item = &Dispatch> {
        recorder::dispatches(&self.commands)
    }

    /// What was recorded, copies included: what [`Gpu::run_twins`] takes.
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// Number of dispatches of one replay.
    pub fn num_dispatches(&self) -> usize {
        self.labels.len()
    }

    /// Encodes the plan into the caller's encoder. The plan may be dropped before that is submitted.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        self.params.share();
        for command in &self.commands {
            match command {
                Command::Dispatch(d) => d.buffers.iter().chain(d.grid.args()).for_each(Buffer::share),
                Command::Copy { src, dst } => [src, dst].into_iter().for_each(Buffer::share),
            }
        }
        self.encode_into(encoder);
    }

    /// For an encoder that is submitted at once.
    fn encode_into(&self, encoder: &mut wgpu::CommandEncoder) {
        Self::encode_steps(&self.steps, encoder);
    }

    fn encode_steps(steps: &[Step], encoder: &mut wgpu::CommandEncoder) {
        let mut steps = steps.iter().peekable();
        while let Some(step) = steps.peek() {
            if let Step::Copy { src, dst } = step {
                encoder.copy_buffer_to_buffer(src.raw(), src.offset(), dst.raw(), dst.offset(), src.size());
                steps.next();
                continue;
            }
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            let mut current: Option<&Arc<Pipeline>> = None;
            while let Some(Step::Dispatch { pipeline, bind_group, offset, grid }) = steps.peek() {
                if !current.is_some_and(|c| Arc::ptr_eq(c, pipeline)) {
                    pass.set_pipeline(&pipeline.raw);
                    current = Some(pipeline);
                }
                pass.set_bind_group(0, bind_group, &[*offset]);
                grid.dispatch(&mut pass);
                steps.next();
            }
        }
    }
}

impl Gpu {
    /// Prepares a recording for being run many times.
    ///
    /// # Errors
    /// Shaders that the device refuses, memory that is exhausted.
    pub fn plan(&self, recorder: &Recorder) -> Result<Plan, KernelError> {
        self.has_memory()?;
        let slot = u64::from(self.caps().offset_align);
        let bytes = Self::layout_params(recorder, slot).max(slot);
        let uniforms = self.alloc_uniform(bytes)?;
        self.prepare(recorder, &uniforms, slot)
    }

    /// Compiles a pipeline; false if it was there already.
    ///
    /// # Errors
    /// A shader that the device refuses.
    pub fn compile(&self, spec: &KernelSpec, choice: &Choice) -> Result<bool, KernelError> {
        let known = self.pipelines().knows(choice);
        self.pipelines().get(spec, choice)?;
        Ok(!known)
    }

    /// Runs a recording once. It is ordered after everything submitted before.
    ///
    /// # Errors
    /// Shaders that the device refuses, memory that is exhausted.
    pub fn submit(&self, recorder: &Recorder) -> Result<(), KernelError> {
        if recorder.commands().is_empty() {
            return Ok(());
        }
        self.has_memory()?;
        let slot = u64::from(self.caps().offset_align);
        for command in recorder.commands() {
            if let Command::Dispatch(d) = command {
                self.pipelines().get(d.spec, &d.choice)?; // compiles outside of the lock
            }
        }
        self.with_uniforms(Self::layout_params(recorder, slot), |uniforms| {
            let plan = self.prepare(recorder, uniforms, slot)?;
            self.replay(&plan, 1);
            Ok(())
        })
    }

    /// Runs a plan `times` times in one submission.
    pub fn replay(&self, plan: &Plan, times: u32) {
        let mut encoder = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for _ in 0..times {
            plan.encode_into(&mut encoder);
        }
        self.queue().submit([encoder.finish()]);
        self.count(|c| &c.submits);
        self.count_by(u64::from(times) * plan.labels.len() as u64, |c| &c.dispatches);
    }

    /// Runs some commands of a plan once, in a submission of their own: a segment of what was recorded, between two
    /// places where the host takes part. What does not lie in the plan is left out.
    pub fn replay_range(&self, plan: &Plan, commands: Range<usize>) {
        let end = commands.end.min(plan.steps.len());
        let Some(steps) = plan.steps.get(commands.start..end).filter(|steps| !steps.is_empty()) else {
            return;
        };
        let mut encoder = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        Plan::encode_steps(steps, &mut encoder);
        self.queue().submit([encoder.finish()]);
        self.count(|c| &c.submits);
        let dispatches = steps.iter().filter(|step| matches!(step, Step::Dispatch { .. })).count();
        self.count_by(dispatches as u64, |c| &c.dispatches);
    }

    fn layout_params(recorder: &Recorder, slot: u64) -> u64 {
        recorder
            .commands()
            .iter()
            .map(|c| match c {
                Command::Dispatch(d) => uniform_bytes(d.params.len()).next_multiple_of(slot),
                Command::Copy { .. } => 0,
            })
            .sum()
    }

    fn prepare(&self, recorder: &Recorder, uniforms: &Buffer, slot: u64) -> Result<Plan, KernelError> {
        let mut steps = Vec::with_capacity(recorder.commands().len());
        let mut params = Vec::new();
        for command in recorder.commands() {
            match command {
                Command::Copy { src, dst } => steps.push(Step::Copy { src: src.clone(), dst: dst.clone() }),
                Command::Dispatch(d) => {
                    let pipeline = self.pipelines().get(d.spec, &d.choice)?;
                    let bind_group = self.bind_group(&pipeline.layout, uniforms, &d.buffers);
                    let offset = params.len() as u32;
                    params.extend_from_slice(&d.params);
                    params.resize((params.len() as u64).next_multiple_of(slot) as usize, 0);
                    steps.push(Step::Dispatch { pipeline, bind_group, offset, grid: d.grid.clone() });
                }
            }
        }
        self.write(uniforms, 0, &params);
        let commands = recorder.commands().to_vec();
        Ok(Plan { steps, labels: recorder.labels(), commands, params: uniforms.clone() })
    }

    /// Runs a plan once with a timestamp around every dispatch.
    ///
    /// # Errors
    /// A device without timestamps or one that fails.
    pub async fn profile(&self, plan: &Plan) -> Result<Vec<Timing>, KernelError> {
        if !self.caps().timestamps {
            return Err(KernelError::Unavailable {
                kernel: "profile",
                variant: "timestamps",
                needs: "timestamp queries".into(),
            });
        }
        let mut ticks = Vec::new();
        // WebGPU allows 4096 queries in a set.
        for chunk in plan.steps.chunks(2048) {
            let count = 2 * chunk.len() as u32;
            let queries = self.device().create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count,
            });
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
            let size = u64::from(count) * 8;
            let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
            let resolved = self.adopt(self.device().create_buffer(&descriptor));
            let mut encoder =
                self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut index = 0;
            for step in chunk {
                match step {
                    Step::Copy { src, dst } => {
                        encoder.copy_buffer_to_buffer(
                            src.raw(),
                            src.offset(),
                            dst.raw(),
                            dst.offset(),
                            src.size(),
                        );
                    }
                    Step::Dispatch { pipeline, bind_group, offset, grid } => {
                        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                            label: None,
                            timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                                query_set: &queries,
                                beginning_of_pass_write_index: Some(index),
                                end_of_pass_write_index: Some(index + 1),
                            }),
                        });
                        pass.set_pipeline(&pipeline.raw);
                        pass.set_bind_group(0, bind_group, &[*offset]);
                        grid.dispatch(&mut pass);
                        index += 2;
                    }
                }
            }
            if index > 0 {
                encoder.resolve_query_set(&queries, 0..index, resolved.raw(), 0);
            }
            self.queue().submit([encoder.finish()]);
            let bytes = self.read(&resolved).await?;
            let values: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes);
            ticks.extend_from_slice(&values[..index as usize]);
        }
        let period = f64::from(self.queue().get_timestamp_period());
        Ok(plan
            .dispatches()
            .zip(ticks.chunks_exact(2))
            .map(|(d, t)| Timing {
                label: d.label(),
                selection: d.choice.selection.to_string(),
                grid: d.grid.most(),
                moved_bytes: (!d.spec.bindings.iter().any(|binding| binding.in_part))
                    .then(|| d.buffers.iter().map(Buffer::size).sum()),
                nanoseconds: t[1].saturating_sub(t[0]) as f64 * period,
            })
            .collect())
    }

    /// Runs the commands of a recording or a plan with the CPU twin instead of the shader for every dispatch that
    /// `on_cpu` picks; the others run on the device. Bisects a wrong number to its kernel: a result that is right
    /// with all twins and wrong without one of them is that kernel's fault.
    ///
    /// # Errors
    /// As [`Gpu::submit`] and [`Gpu::read`].
    pub async fn run_twins(
        &self,
        commands: &[Command],
        mut on_cpu: impl FnMut(&Dispatch) -> bool,
    ) -> Result<(), KernelError> {
        for command in commands {
            match command {
                Command::Dispatch(d) if on_cpu(d) => self.run_twin(d).await?,
                command => {
                    let mut single = Recorder::new(self);
                    match command {
                        Command::Dispatch(d) => single.push(d.clone()),
                        Command::Copy { src, dst } => single.copy(src, dst)?,
                    }
                    self.submit(&single)?;
                }
            }
        }
        Ok(())
    }

    async fn run_twin(&self, d: &Dispatch) -> Result<(), KernelError> {
        if let Some(args) = d.grid.args() {
            // No workgroup, no result. Of other grids the twin computes what the parameters say.
            let words: Vec<u32> = read_as(self, args).await?;
            if words.iter().take(3).any(|&count| count == 0) {
                return Ok(());
            }
        }
        let mut buffers = Vec::with_capacity(d.buffers.len());
        for buffer in &d.buffers {
            buffers.push(self.read(buffer).await?);
        }
        (d.spec.twin)(&mut TwinCall {
            params: &d.params,
            selection: &d.choice.selection,
            buffers: &mut buffers,
        });
        for ((buffer, binding), data) in d.buffers.iter().zip(d.spec.bindings).zip(&buffers) {
            if binding.access == Access::ReadWrite {
                self.write(buffer, 0, data);
            }
        }
        Ok(())
    }
}

/// Reads a whole buffer as elements.
///
/// # Errors
/// As [`Gpu::read`].
pub async fn read_as<T: bytemuck::Pod>(gpu: &Gpu, buffer: &Buffer) -> Result<Vec<T>, GpuError> {
    let bytes = gpu.read(buffer).await?;
    Ok(bytemuck::pod_collect_to_vec(&bytes[..bytes.len() / size_of::<T>() * size_of::<T>()]))
}

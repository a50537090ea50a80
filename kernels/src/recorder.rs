//! A list of dispatches. Recording does no GPU work.

use bytemuck::Pod;

use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::choice::{Choice, Launch};
use crate::device::Gpu;
use crate::error::KernelError;
use crate::grid::Grid;
use crate::spec::{Access, Binding, KernelSpec};

/// One command of a recording.
#[derive(Clone, Debug)]
pub enum Command {
    /// Runs a kernel.
    Dispatch(Dispatch),
    /// Copies bytes between buffers (splits the compute pass).
    Copy {
        /// From.
        src: Buffer,
        /// To; as long as `src`.
        dst: Buffer,
    },
}

/// One run of a kernel.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// Kernel.
    pub spec: &'static KernelSpec,
    /// Pipeline.
    pub choice: Choice,
    /// Bytes of `Params`.
    pub params: Vec<u8>,
    /// Storage bindings.
    pub buffers: Vec<Buffer>,
    /// Workgroups.
    pub grid: Grid,
}

impl Dispatch {
    /// `kernel/variant`, with ` indirect` behind it where the grid comes from a buffer.
    pub fn label(&self) -> String {
        let indirect = if self.grid.args().is_some() { " indirect" } else { "" };
        format!("{}/{}{indirect}", self.spec.name, self.choice.variant)
    }

    /// Pipeline, parameters and grid.
    pub fn launch(&self) -> Launch {
        let indirect = self.grid.args().is_some();
        Launch { choice: self.choice.clone(), params: self.params.clone(), grid: self.grid.most(), indirect }
    }
}

/// Collects commands for one device.
#[derive(Debug)]
pub struct Recorder {
    gpu: Gpu,
    commands: Vec<Command>,
}

/// The dispatches among commands.
pub(crate) fn dispatches(commands: &[Command]) -> impl Iterator<Item = &Dispatch> {
    commands.iter().filter_map(|c| match c {
        Command::Dispatch(d) => Some(d),
        Command::Copy { .. } => None,
    })
}

impl Recorder {
    /// An empty recording.
    pub fn new(gpu: &Gpu) -> Self {
        Self { gpu: gpu.clone(), commands: Vec::new() }
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// What the device can do.
    pub fn caps(&self) -> &Caps {
        self.gpu.caps()
    }

    /// Commands so far.
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// Dispatches so far.
    pub fn dispatches(&self) -> impl Iterator<Item = &Dispatch> {
        dispatches(&self.commands)
    }

    /// `kernel/variant` of every dispatch so far.
    pub fn labels(&self) -> Vec<String> {
        self.dispatches().map(Dispatch::label).collect()
    }

    /// Forgets the commands and keeps the memory.
    pub fn clear(&mut self) {
        self.commands.clear();
    }

    /// Appends a dispatch. A grid of counts with a zero is no work and appends nothing.
    ///
    /// # Errors
    /// Numbers of bindings or bytes that do not fit the spec, sizes over a limit of the device, a variant that
    /// failed its self-test, a grid from a buffer that is too short, crooked, written by the dispatch or not for that use.
    pub fn dispatch(
        &mut self,
        spec: &'static KernelSpec,
        choice: Choice,
        params: &impl Pod,
        buffers: &[&Buffer],
        grid: impl Into<Grid>,
    ) -> Result<(), KernelError> {
        self.dispatch_bytes(spec, choice, bytemuck::bytes_of(params), buffers, grid.into())
    }

    /// Appends a launch: with its grid in a buffer of its own, where it comes from one.
    ///
    /// # Errors
    /// As [`Recorder::dispatch`]; memory that is exhausted.
    pub(crate) fn launch(
        &mut self,
        spec: &'static KernelSpec,
        launch: &Launch,
        buffers: &[&Buffer],
    ) -> Result<(), KernelError> {
        let Launch { choice, params, grid: most, indirect } = launch;
        let grid = if *indirect {
            let args = self.gpu.alloc_indirect(Grid::BYTES)?;
            self.gpu.write(&args, 0, bytemuck::cast_slice(most));
            Grid::Indirect { args, most: *most }
        } else {
            Grid::Count(*most)
        };
        self.dispatch_bytes(spec, choice.clone(), params, buffers, grid)
    }

    /// [`Recorder::dispatch`] with the parameters as bytes.
    pub(crate) fn dispatch_bytes(
        &mut self,
        spec: &'static KernelSpec,
        choice: Choice,
        params: &[u8],
        buffers: &[&Buffer],
        grid: Grid,
    ) -> Result<(), KernelError> {
        let caps = self.gpu.caps();
        let most = grid.most();
        let kernel = spec.name;
        if params.len() != spec.params_bytes {
            let (field, got) = ("bytes of Params", params.len() as u64);
            return Err(KernelError::BadParam { kernel, field, got, must_be: "what the kernel declares" });
        }
        if buffers.len() != spec.bindings.len() {
            let (field, got) = ("number of bindings", buffers.len() as u64);
            return Err(KernelError::BadParam { kernel, field, got, must_be: "what the kernel declares" });
        }
        if caps.is_blocked(kernel, choice.variant, choice.data) {
            // `select` had nothing else to offer: an error is better than wrong numbers.
            let needs = "a passed self-test (no other variant can take its place; see `girih doctor`)".into();
            return Err(KernelError::Unavailable { kernel, variant: choice.variant, needs });
        }
        let limits: [(&'static str, u64, u64); 4] = [
            ("number of workgroups", most.into_iter().max().unwrap_or(0).into(), caps.workgroups.into()),
            ("number of invocations", choice.invocations.into(), caps.invocations.into()),
            ("workgroup memory", choice.workgroup_bytes.into(), caps.workgroup_bytes.into()),
            ("number of storage buffers", buffers.len() as u64, caps.storage_buffers.into()),
        ];
        for (what, got, limit) in limits {
            if got > limit {
                return Err(KernelError::OverLimit { kernel, what, got, limit });
            }
        }
        for (buffer, binding) in buffers.iter().zip(spec.bindings) {
            if buffer.size() > caps.binding_bytes {
                return Err(KernelError::OverLimit {
                    kernel,
                    what: "bytes of a binding",
                    got: buffer.size(),
                    limit: caps.binding_bytes,
                });
            }
            if buffer.size() == 0 || buffer.size() % 4 != 0 {
                return Err(KernelError::BadBuffer {
                    kernel,
                    binding: binding.name,
                    got: buffer.size(),
                    want: (buffer.size() + 1).next_multiple_of(4),
                });
            }
            let align = u64::from(caps.offset_align);
            if !buffer.offset().is_multiple_of(align) {
                let (binding, got) = (binding.name, buffer.offset());
                return Err(KernelError::Misaligned { kernel, binding, got, want: align });
            }
        }
        check_aliases(spec, buffers)?;
        if let Some(args) = grid.args() {
            check_args(spec, args, buffers)?;
        }
        if most.contains(&0) {
            return Ok(());
        }
        self.commands.push(Command::Dispatch(Dispatch {
            spec,
            choice,
            params: params.to_vec(),
            buffers: buffers.iter().map(|&b| b.clone()).collect(),
            grid,
        }));
        Ok(())
    }

    pub(crate) fn push(&mut self, dispatch: Dispatch) {
        self.commands.push(Command::Dispatch(dispatch));
    }

    /// Appends a copy of whole ranges of the same size.
    ///
    /// # Errors
    /// Sizes that differ or are not multiples of 4, two ranges of one buffer.
    pub fn copy(&mut self, src: &Buffer, dst: &Buffer) -> Result<(), KernelError> {
        if src.size() != dst.size() {
            return Err(KernelError::BadBuffer {
                kernel: "copy",
                binding: "dst",
                got: dst.size(),
                want: src.size(),
            });
        }
        for (binding, buffer) in [("src", src), ("dst", dst)] {
            for got in [buffer.offset(), buffer.size()] {
                if !got.is_multiple_of(4) {
                    return Err(KernelError::Misaligned { kernel: "copy", binding, got, want: 4 });
                }
            }
        }
        if src.same_memory(dst) {
            return Err(KernelError::Aliased { kernel: "copy", written: "dst", other: "src" });
        }
        self.commands.push(Command::Copy { src: src.clone(), dst: dst.clone() });
        Ok(())
    }
}

/// The words of a grid: three of them, where the device can read them, in a buffer for it that the dispatch does not write.
fn check_args(spec: &KernelSpec, args: &Buffer, buffers: &[&Buffer]) -> Result<(), KernelError> {
    const GRID: &str = "grid";
    let kernel = spec.name;
    if args.size() < Grid::BYTES {
        return Err(KernelError::BadBuffer { kernel, binding: GRID, got: args.size(), want: Grid::BYTES });
    }
    if !args.offset().is_multiple_of(4) {
        return Err(KernelError::Misaligned { kernel, binding: GRID, got: args.offset(), want: 4 });
    }
    if !args.is_indirect() {
        return Err(KernelError::NotIndirect { kernel });
    }
    let is_written = |(binding, buffer): &(&Binding, &&Buffer)| {
        binding.access == Access::ReadWrite && buffer.same_memory(args)
    };
    match spec.bindings.iter().zip(buffers).find(is_written) {
        Some((binding, _)) => Err(KernelError::Aliased { kernel, written: binding.name, other: GRID }),
        None => Ok(()),
    }
}

/// WebGPU's rule: within a dispatch a buffer is only read or only written, and written ranges do not overlap.
fn check_aliases(spec: &KernelSpec, buffers: &[&Buffer]) -> Result<(), KernelError> {
    let bound = || spec.bindings.iter().zip(buffers);
    for (i, (written, a)) in bound().enumerate().filter(|(_, (b, _))| b.access == Access::ReadWrite) {
        for (j, (other, b)) in bound().enumerate() {
            if i != j && a.same_memory(b) && (other.access == Access::Read || a.overlaps(b)) {
                return Err(KernelError::Aliased {
                    kernel: spec.name,
                    written: written.name,
                    other: other.name,
                });
            }
        }
    }
    Ok(())
}

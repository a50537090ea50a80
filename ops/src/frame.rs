//! One forward pass: what was recorded, and the memory of its intermediate results.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use girih_kernels::{Buffer, Dispatch, Gpu, GpuError, KernelError, Plan, Recorder};

use crate::tensor::elements;
use crate::{DType, OpError, Tensor};

/// Buffers of intermediate results. A tensor that is dropped gives its buffer back; the next allocation of that
/// size takes it. Safe because commands run in the order in which they are recorded, and frames of one arena
/// are submitted in that order too.
#[derive(Clone, Debug, Default)]
pub struct Arena {
    free: Arc<Mutex<Vec<Buffer>>>,
}

/// Gives a buffer back to its arena when the last tensor on it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    arena: Arena,
    buffer: Buffer,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.arena.lock().push(self.buffer.clone());
    }
}

impl Arena {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Buffer>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, gpu: &Gpu, bytes: u64) -> Result<Buffer, GpuError> {
        // Sizes are rounded up so that passes of similar length share buffers.
        let limit = gpu.caps().buffer_bytes;
        if bytes > limit {
            return Err(GpuError::BufferTooLarge { bytes, limit });
        }
        let size =
            if bytes <= 4096 { bytes.max(256).next_power_of_two() } else { bytes.next_multiple_of(4096) };
        let size = if size > limit { bytes } else { size };
        let mut free = self.lock();
        let fit = (0..free.len())
            .filter(|&i| (size..=size.saturating_mul(2)).contains(&free[i].size()))
            .min_by_key(|&i| free[i].size());
        match fit {
            Some(i) => Ok(free.swap_remove(i)),
            None => gpu.alloc(size),
        }
    }

    /// Frees the buffers that no tensor uses.
    pub fn trim(&self) {
        self.lock().clear();
    }
}

/// A place of a recording where the host takes part: it reads `routes`, which the commands before have written, sees to it
/// that experts lie on the device, says in `places` where, and runs `commands` as often as it takes until each slot has
/// had its expert ([`mixture_in_places`](crate::mixture_in_places)).
#[derive(Clone, Debug)]
pub struct BreakPoint {
    /// Of the recording.
    pub commands: Range<usize>,
    /// Which mixture it is, as its caller counts them.
    pub mixture: usize,
    /// u32 `[T, S, 2]`: expert, bits of its weight.
    pub routes: Tensor,
    /// u32 `[T, S, 2]`: place of the expert, or [`NONE`](crate::moe::NONE) for slots that are left out this time; any word.
    pub places: Tensor,
    /// A later mixture, and the routes that it is likely to choose, u32 `[T, S', 2]`.
    pub guess: Option<(usize, Tensor)>,
}

/// A recording and its arena.
#[derive(Debug)]
pub struct Frame {
    recorder: Recorder,
    breaks: Vec<BreakPoint>,
    arena: Arena,
    watch: Option<Box<Watch>>,
}

/// Intermediate results that a caller wants to see.
#[derive(Debug, Default)]
struct Watch {
    names: BTreeSet<String>,
    kept: BTreeMap<String, Tensor>,
}

impl Frame {
    /// A frame with an arena of its own.
    pub fn new(gpu: &Gpu) -> Self {
        Self::with_arena(gpu, Arena::default())
    }

    /// A frame whose intermediate results come from `arena`.
    pub fn with_arena(gpu: &Gpu, arena: Arena) -> Self {
        Self { recorder: Recorder::new(gpu), breaks: Vec::new(), arena, watch: None }
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        self.recorder.gpu()
    }

    /// The recording.
    pub fn recorder(&mut self) -> &mut Recorder {
        &mut self.recorder
    }

    /// The recording, to look at.
    pub fn recording(&self) -> &Recorder {
        &self.recorder
    }

    /// Where the host takes part, in their order. A frame that has such places runs in segments ([`Frame::segments`]).
    pub fn breaks(&self) -> &[BreakPoint] {
        &self.breaks
    }

    /// The host takes part from now on.
    pub(crate) fn push_break(&mut self, point: BreakPoint) {
        self.breaks.push(point);
    }

    /// Without the host its recording would compute something else.
    fn must_be_whole(&self) -> Result<(), KernelError> {
        match self.breaks.len() as u64 {
            0 => Ok(()),
            got => {
                let (kernel, field) = ("frame", "number of places where the host takes part");
                Err(KernelError::BadParam { kernel, field, got, must_be: "0 of what runs as a whole" })
            }
        }
    }

    /// Makes what was recorded ready for being run in segments ([`Gpu::replay_range`]), and starts anew.
    ///
    /// # Errors
    /// As [`Gpu::plan`].
    pub fn segments(&mut self) -> Result<(Plan, Vec<BreakPoint>), KernelError> {
        let plan = self.recorder.gpu().plan(&self.recorder)?;
        self.recorder.clear();
        Ok((plan, std::mem::take(&mut self.breaks)))
    }

    /// Keeps from now on what is [noted](Frame::note) under these names.
    pub fn watch(&mut self, names: BTreeSet<String>) {
        self.watch = Some(Box::new(Watch { names, kept: BTreeMap::new() }));
    }

    /// Whether somebody wants to see what has this name: false, and free, unless [`Frame::watch`] was called.
    pub fn watches(&self, name: &str) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.names.contains(name))
    }

    /// Keeps a tensor if somebody wants to see it. It must not be written again.
    pub fn note(&mut self, name: &str, x: &Tensor) {
        if let Some(watch) = self.watch.as_mut().filter(|watch| watch.names.contains(name)) {
            watch.kept.insert(name.to_owned(), x.clone());
        }
    }

    /// What was noted, and an end of watching. Values are there once the frame is submitted.
    pub fn take_notes(&mut self) -> BTreeMap<String, Tensor> {
        self.watch.take().map(|watch| watch.kept).unwrap_or_default()
    }

    /// An uninitialised tensor.
    ///
    /// # Errors
    /// Memory that is exhausted, a size over the device's limit.
    pub fn alloc(&mut self, shape: &[u32], dtype: DType) -> Result<Tensor, OpError> {
        let Some(all) = elements(shape) else {
            let want = "of fewer than 2^62 elements".to_owned();
            return Err(OpError::Shape { op: "alloc", tensor: "result", got: shape.to_vec(), want });
        };
        let bytes = 4 * all;
        let buffer = self.arena.take(self.recorder.gpu(), bytes.max(4))?;
        let lease = Arc::new(Lease { arena: self.arena.clone(), buffer: buffer.clone() });
        Tensor::with_lease(buffer, shape, dtype, Some(lease))
    }

    /// Runs what was recorded and starts anew.
    ///
    /// # Errors
    /// As [`Gpu::submit`]; a recording that has [`BreakPoint`]s.
    pub fn submit(&mut self) -> Result<(), KernelError> {
        self.must_be_whole()?;
        let gpu = self.recorder.gpu().clone();
        gpu.submit(&self.recorder)?;
        self.recorder.clear();
        Ok(())
    }

    /// [`Frame::submit`] with the CPU twin of every kernel that `on_cpu` picks instead of its shader.
    ///
    /// # Errors
    /// As [`Gpu::run_twins`]; a recording that has [`BreakPoint`]s.
    pub async fn run_twins(&mut self, on_cpu: impl FnMut(&Dispatch) -> bool) -> Result<(), KernelError> {
        self.must_be_whole()?;
        let gpu = self.recorder.gpu().clone();
        gpu.run_twins(self.recorder.commands(), on_cpu).await?;
        self.recorder.clear();
        Ok(())
    }

    /// Makes what was recorded ready for being replayed. The buffers of its intermediate results stay with the
    /// plan if the frame's arena is not used by anything else.
    ///
    /// # Errors
    /// As [`Gpu::plan`]; a recording that has [`BreakPoint`]s.
    pub fn plan(self) -> Result<Plan, KernelError> {
        self.must_be_whole()?;
        self.recorder.gpu().plan(&self.recorder)
    }
}

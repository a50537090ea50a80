//! How many workgroups a dispatch runs.

use crate::buffer::Buffer;

/// Workgroups along x, y and z.
#[derive(Clone, Debug)]
pub enum Grid {
    /// So many.
    Count([u32; 3]),
    /// As many as a buffer says when the dispatch begins: an indirect dispatch.
    ///
    /// Who writes the words keeps them at or below [`Caps::workgroups`](crate::Caps::workgroups) along each axis. More are none
    /// at all in a browser, and on a caller's device whose instance has `VALIDATION_INDIRECT_CALL` (wgpu's default); on
    /// others the driver does what it likes. [`Gpu::new`](crate::Gpu::new) asks for no validation: it costs a dispatch of its own.
    Indirect {
        /// Three `u32`, of a buffer from [`Gpu::alloc_indirect`](crate::Gpu::alloc_indirect). The dispatch may read it but not
        /// write it.
        args: Buffer,
        /// What the words are at most: what limits and costs are computed from.
        most: [u32; 3],
    },
}

impl Grid {
    /// Bytes of the words.
    pub const BYTES: u64 = 12;

    /// Workgroups at most.
    pub fn most(&self) -> [u32; 3] {
        match self {
            Self::Count(count) => *count,
            Self::Indirect { most, .. } => *most,
        }
    }

    /// The buffer that says how many.
    pub fn args(&self) -> Option<&Buffer> {
        match self {
            Self::Count(_) => None,
            Self::Indirect { args, .. } => Some(args),
        }
    }

    /// Runs them.
    pub(crate) fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        match self {
            Self::Count([x, y, z]) => pass.dispatch_workgroups(*x, *y, *z),
            Self::Indirect { args, .. } => pass.dispatch_workgroups_indirect(args.raw(), args.offset()),
        }
    }
}

impl From<[u32; 3]> for Grid {
    fn from(count: [u32; 3]) -> Self {
        Self::Count(count)
    }
}

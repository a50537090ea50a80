//! The tile of a product of many rows that a workgroup takes, and how many workgroups share its channels.

use std::fmt;

use super::product::Shape;
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::error::KernelError;
use crate::rows;

/// `TM TN` results of an invocation, `TX TY` invocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub tm: u32,
    pub tn: u32,
    pub tx: u32,
    pub ty: u32,
    /// Groups of 8 channels in workgroup memory, of floats.
    pub bk8: u32,
    /// No workgroup memory.
    pub direct: bool,
    /// Smallest subgroup that works; 1 without subgroup operations.
    pub lanes: u32,
}

/// `tile 64x64 by 8x4`: rows of x and of W of a workgroup, and of an invocation; `direct` without workgroup memory, with the
/// lanes that share x.
impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.direct { "direct" } else { "tile" };
        write!(f, "{kind} {}x{} by {}x{}", self.bm(), self.bn(), self.tm, self.tn)?;
        if self.lanes > 1 { write!(f, ", {} lanes", self.lanes) } else { Ok(()) }
    }
}

/// Workgroups that fill a GPU of unknown size reasonably.
pub(super) const ENOUGH_GROUPS: u64 = 128;
/// Invocations that keep a large GPU's memory busy, where a product of few rows is bound by it: 4 subgroups of 32 for
/// each of 256 SIMDs.
const ENOUGH_INVOCATIONS: u32 = 32768;
/// Rows up to which memory is what a product is bound by.
const FEW_ROWS: u32 = 32;
/// Most workgroups that share the channels of a tile.
pub(super) const MAX_SPLITS: u32 = 16;
/// Workgroups from which on more of them, by splitting, are not worth a try.
const MANY_GROUPS: u64 = 1024;
/// Each adds up at least 256 channels.
const MIN_SPLIT_K8: u32 = 32;

impl Tile {
    /// `[TM, TN]` results of each of `[TX, TY]` invocations, which share W and x through workgroup memory.
    pub const fn shared([tm, tn]: [u32; 2], [tx, ty]: [u32; 2]) -> Self {
        Self { tm, tn, tx, ty, bk8: 2, direct: false, lanes: 1 }
    }

    /// The same with more channels at a time: more loads under way of fewer invocations.
    pub const fn deep(self, bk8: u32) -> Self {
        Self { bk8, ..self }
    }

    /// For a CPU's vector unit: invocations side by side along N, x shared through a subgroup of `lanes` if over 1.
    pub const fn direct([tm, tn]: [u32; 2], tx: u32, lanes: u32) -> Self {
        Self { tm, tn, tx, ty: 1, bk8: 0, direct: true, lanes }
    }

    /// Rows of x.
    pub fn bm(self) -> u32 {
        self.tm * self.ty
    }

    /// Rows of W.
    pub fn bn(self) -> u32 {
        self.tn * self.tx
    }

    /// Workgroups for `[m, n]` results, channels divided among `splits` of them.
    pub fn grid(self, m: u32, n: u32, splits: u32) -> [u32; 3] {
        [n.div_ceil(self.bn()), m.div_ceil(self.bm()), splits]
    }

    /// Workgroups for `[m, n]` results.
    pub fn groups(self, m: u32, n: u32) -> u64 {
        u64::from(m.div_ceil(self.bm())) * u64::from(n.div_ceil(self.bn()))
    }

    /// Workgroups that are enough.
    fn enough(self) -> u64 {
        if self.bm() > FEW_ROWS { ENOUGH_GROUPS } else { (ENOUGH_INVOCATIONS / (self.tx * self.ty)).into() }
    }
}

/// A tile, and among how many workgroups its channels are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub tile: Tile,
    pub splits: u32,
    /// Groups of 8 channels of each.
    pub split_k8: u32,
}

impl Plan {
    /// One workgroup adds up all channels.
    pub fn whole(tile: Tile, shape: Shape) -> Self {
        Self { tile, splits: 1, split_k8: shape.num_k8() }
    }

    /// As many as fill the device, in steps of `step_k8` groups of 8 channels.
    pub fn split(caps: &Caps, tile: Tile, shape: Shape, step_k8: u32) -> Self {
        let num_k8 = shape.num_k8();
        let wanted = tile.enough() / tile.groups(shape.m, shape.n).max(1);
        let splits = (wanted as u32).min(num_k8 / MIN_SPLIT_K8).min(MAX_SPLITS);
        if splits < 2 {
            return Self::whole(tile, shape);
        }
        Self::divided(tile, shape, splits, step_k8).filter_fits(caps, shape)
    }

    /// Into about `splits` shares.
    pub fn divided(tile: Tile, shape: Shape, splits: u32, step_k8: u32) -> Self {
        let split_k8 = shape.num_k8().div_ceil(splits).next_multiple_of(step_k8);
        Self { tile, splits: shape.num_k8().div_ceil(split_k8), split_k8 }
    }

    /// All that are worth a try with a tile: undivided, and if it may be, divided.
    pub fn candidates(caps: &Caps, tile: Tile, shape: Shape, step_k8: u32, may_split: bool) -> Vec<Self> {
        let mut all = vec![Self::whole(tile, shape)];
        if may_split && tile.groups(shape.m, shape.n) < MANY_GROUPS {
            for splits in [2, 4, 8, MAX_SPLITS] {
                let plan = Self::divided(tile, shape, splits, step_k8).filter_fits(caps, shape);
                if plan.split_k8 >= MIN_SPLIT_K8 && !all.contains(&plan) {
                    all.push(plan);
                }
            }
        }
        all
    }

    /// Undivided where partial sums exceed a binding.
    fn filter_fits(self, caps: &Caps, shape: Shape) -> Self {
        if self.scratch_bytes(shape) > caps.binding_bytes { Self::whole(self.tile, shape) } else { self }
    }

    pub fn is_split(self) -> bool {
        self.splits > 1
    }

    /// Bytes of partial sums `[splits, M, N]`; 0 if there are none.
    pub fn scratch_bytes(self, shape: Shape) -> u64 {
        let Shape { m, n, .. } = shape;
        if self.is_split() { rows::product([4, self.splits.into(), m.into(), n.into()]) } else { 0 }
    }

    /// Where workgroups write: partial sums, or the result.
    pub fn output<'a>(
        self,
        kernel: &'static str,
        shape: Shape,
        scratch: Option<&'a Buffer>,
        y: &'a Buffer,
    ) -> Result<&'a Buffer, KernelError> {
        let want = self.scratch_bytes(shape);
        match scratch {
            _ if !self.is_split() => Ok(y),
            Some(scratch) if scratch.size() >= want => Ok(scratch),
            scratch => {
                let got = scratch.map_or(0, Buffer::size);
                Err(KernelError::BadBuffer { kernel, binding: "scratch", got, want })
            }
        }
    }
}

/// `tile 32x64 by 4x4, split 8`
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tile.fmt(f)?;
        if self.is_split() { write!(f, ", split {}", self.splits) } else { Ok(()) }
    }
}

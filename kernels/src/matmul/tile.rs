//! The tile of a product of many rows that a workgroup takes.

use std::fmt;

/// `TM TN` results of an invocation, `TX TY` invocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub tm: u32,
    pub tn: u32,
    pub tx: u32,
    pub ty: u32,
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
pub(super) const ENOUGH_GROUPS: u32 = 128;

impl Tile {
    /// `[TM, TN]` results of each of `[TX, TY]` invocations, which share W and x through workgroup memory.
    pub const fn shared([tm, tn]: [u32; 2], [tx, ty]: [u32; 2]) -> Self {
        Self { tm, tn, tx, ty, direct: false, lanes: 1 }
    }

    /// For a CPU's vector unit: invocations side by side along N, x shared through a subgroup of `lanes` if over 1.
    pub const fn direct([tm, tn]: [u32; 2], tx: u32, lanes: u32) -> Self {
        Self { tm, tn, tx, ty: 1, direct: true, lanes }
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
}

//! What the probes of memory share: passes over a set of vec4s.

use bytemuck::{Pod, Zeroable};

use crate::case::Regime;

/// Same layout as `Params` in `read.wgsl`.
/// Same layout as `Params` in `write.wgsl`.
/// Same layout as `Params` in `copy.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Number of vec4s.
    pub len: u32,
    /// Workgroups along x.
    pub grid_x: u32,
    /// Workgroups that take the whole set once.
    pub chunks: u32,
    /// Workgroups.
    pub groups: u32,
}

impl Params {
    /// `passes` over `len` vec4s by workgroups that take `each`, at most `workgroups` along an axis; and the grid.
    pub(super) fn of(len: u32, each: u32, passes: u32, workgroups: u32) -> (Self, [u32; 3]) {
        let chunks = len.div_ceil(each).max(1);
        let groups = chunks * passes;
        let grid_x = groups.min(workgroups);
        (Self { len, grid_x, chunks, groups }, [grid_x, groups.div_ceil(grid_x.max(1)), 1])
    }
}

/// Cases of the three: name, regime, vec4s, passes, workgroups along an axis.
pub(super) const CASES: [(&str, Regime, u32, u32, u32); 4] = [
    ("one_vec4", Regime::OneTile, 1, 1, 65535),
    ("partial_group", Regime::PartialTile, 700, 2, 65535),
    ("wraps_to_y", Regime::ManyTiles, 9000, 3, 4),
    ("hidden_state_of_llama_8b", Regime::Model, 1024, 1, 65535),
];

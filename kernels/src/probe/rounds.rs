//! What the probes of arithmetic and of barriers share: rounds in registers.

use bytemuck::{Pod, Zeroable};

use crate::case::Regime;

/// Same layout as `Params` in `fma.wgsl`.
/// Same layout as `Params` in `int8_dot.wgsl`.
/// Same layout as `Params` in `barrier.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Steps of each chain.
    pub rounds: u32,
    /// Unused.
    pub pad: [u32; 3],
}

impl Params {
    pub(super) fn of(rounds: u32) -> Self {
        Self { rounds, pad: [0; 3] }
    }
}

/// Cases of the three: name, regime, workgroups, rounds.
pub(super) const CASES: [(&str, Regime, u32, u32); 4] = [
    ("one_round", Regime::OneTile, 1, 1),
    ("rounds_without_a_multiple", Regime::PartialTile, 2, 7),
    ("many_rounds", Regime::ManyTiles, 3, 50),
    ("as_measured", Regime::Model, 16, 64),
];

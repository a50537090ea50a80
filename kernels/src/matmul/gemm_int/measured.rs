//! The product of many rows of integers, measured.

use super::super::int;
use super::super::product::Shape;
use super::super::tuning::{self, Recorded};
use super::{DIRECT, LARGE, MEDIUM, SMALL, SPEC, Tile, choice, rule};
use crate::caps::Caps;
use crate::choice::{Data, Launch};
use crate::quant::{Format, WeightFormat};
use crate::spec::{Contents, Ways, Workload};

/// [`DIRECT`] with other shapes of the results of an invocation.
pub(super) const DIRECT_TILES: [Tile; 3] =
    [DIRECT, Tile { tm: 8, tn: 4, ..DIRECT }, Tile { tm: 16, tn: 2, ..DIRECT }];

/// The rule's choice first, then what else may be selected on a device.
pub(super) fn candidates(caps: &Caps, shape: Shape, format: Format) -> Vec<Tile> {
    let rule = rule(caps, shape, format);
    let allowed = |variant: &str| !caps.is_blocked(SPEC.name, variant, Data::Weights(format.into()));
    let smallest = caps.subgroup_size.filter(|_| caps.subgroups()).map_or(1, |(smallest, _)| smallest);
    let mut all = Vec::new();
    if caps.cpu_variants() && smallest >= DIRECT.lanes && allowed("direct_subgroup") {
        all.extend(DIRECT_TILES);
    }
    if allowed("tiled") {
        all.extend(if caps.cpu_variants() { &[SMALL][..] } else { &[LARGE, MEDIUM, SMALL] });
    }
    tuning::rule_first(rule, all)
}

fn recorded(launch: &Launch) -> Option<(Recorded, Format)> {
    let recorded = Recorded::whole(launch)?;
    let WeightFormat::Quant(format) = recorded.format else { return None };
    Some((recorded, format))
}

/// The tiles for what was recorded.
pub(super) fn ways(caps: &Caps, launch: &Launch) -> Option<Ways> {
    let (recorded, format) = recorded(launch)?;
    let Recorded { shape, epilogue, .. } = recorded;
    let way = |tile: Tile| {
        let params = bytemuck::bytes_of(&recorded.params_of(shape)).to_vec();
        let grid = tile.grid(shape.m, shape.n, 1);
        let launch = Launch { choice: choice(tile, format, epilogue), params, grid };
        tuning::way(tile.to_string(), &SPEC, launch)
    };
    let ways = candidates(caps, shape, format).into_iter().map(way);
    let ways = ways.filter(|way| caps.runs(&way.steps[0].launch.choice)).collect();
    Some(Ways { shape: tuning::class_of_rows(shape), ways })
}

/// Data of its shape.
pub(super) fn workload(caps: &Caps, launch: &Launch) -> Option<Workload> {
    let (recorded, format) = recorded(launch)?;
    let Shape { m, n, k } = recorded.sample();
    let choice = choice(rule(caps, recorded.shape, format), format, recorded.epilogue);
    let (codes, scales) = int::seeded_codes(m, k, true, 4);
    let x = bytemuck::cast_slice(&codes).to_vec();
    let bias = recorded.bias();
    let mut workload = recorded.workload(x, int::bench_bytes(n, k, format), &bias, choice);
    let rows = u64::from(recorded.shape.m);
    let scale_bytes = 8 * rows * u64::from(recorded.shape.num_blocks());
    workload.buffers.push(Contents::repeated(&scales, scale_bytes));
    Some(workload)
}

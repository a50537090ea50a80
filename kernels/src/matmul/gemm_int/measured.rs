//! The product of many rows of integers, measured.

use super::super::int;
use super::super::product::Shape;
use super::super::tuning::{self, Recorded};
use super::{BLOCK_K8, DIRECT, FEW, Plan, SPEC, TILED, Tile, choice, rule};
use crate::caps::Caps;
use crate::choice::{Data, Launch};
use crate::quant::{Format, WeightFormat};
use crate::spec::{Contents, Ways, Workload};

/// [`DIRECT`] with other shapes of the results of an invocation.
pub(super) const DIRECT_TILES: [Tile; 3] =
    [DIRECT, Tile { tm: 8, tn: 4, ..DIRECT }, Tile { tm: 16, tn: 2, ..DIRECT }];

/// The rule's choice first, then what else may be selected on a device.
pub(super) fn candidates(caps: &Caps, shape: Shape, format: WeightFormat) -> Vec<Plan> {
    let rule = rule(caps, shape, &[format]);
    let allowed = |variant: &str| !caps.is_blocked(SPEC.name, variant, Data::Weights(format));
    let smallest = caps.subgroup_size.filter(|_| caps.subgroups()).map_or(1, |(smallest, _)| smallest);
    let mut all = Vec::new();
    if caps.cpu_variants() && smallest >= DIRECT.lanes && allowed("direct_subgroup") {
        all.extend(DIRECT_TILES.map(|tile| Plan::whole(tile, shape)));
    }
    if allowed("tiled") {
        let tiles = if caps.cpu_variants() { &[FEW][..] } else { &TILED };
        let may_split = !caps.cpu_variants() && allowed("split_k");
        all.extend(tiles.iter().flat_map(|&tile| Plan::candidates(caps, tile, shape, BLOCK_K8, may_split)));
    }
    tuning::rule_first(rule, all)
}

fn recorded(launch: &Launch) -> Option<(Recorded, Format)> {
    let recorded = Recorded::whole(launch)?;
    let WeightFormat::Quant(format) = recorded.format else { return None };
    Some((recorded, format))
}

/// The plans for what was recorded.
pub(super) fn ways(caps: &Caps, launch: &Launch) -> Option<Ways> {
    let (recorded, format) = recorded(launch)?;
    let shape = recorded.shape;
    let candidates = candidates(caps, shape, recorded.format);
    let way = |plan: Plan| {
        recorded.way_of_plan(caps, &SPEC, plan, |split, epilogue| choice(plan.tile, format, split, epilogue))
    };
    Some(tuning::ways(caps, shape, candidates.into_iter().map(way)))
}

/// Data of its shape.
pub(super) fn workload(caps: &Caps, launch: &Launch) -> Option<Workload> {
    let (recorded, format) = recorded(launch)?;
    let Shape { m, n, k } = recorded.sample();
    let tile = rule(caps, recorded.shape, &[recorded.format]).tile;
    let choice = choice(tile, format, false, recorded.epilogue);
    let (codes, scales) = int::seeded_codes(m, k, true, 4);
    let x = bytemuck::cast_slice(&codes).to_vec();
    let bias = recorded.bias();
    let mut workload = recorded.workload(x, int::bench_bytes(n, k, format), &bias, choice);
    let rows = u64::from(recorded.shape.m);
    let scale_bytes = 8 * rows * u64::from(recorded.shape.num_blocks());
    workload.buffers.push(Contents::repeated(&scales, scale_bytes));
    let candidates = candidates(caps, recorded.shape, recorded.format);
    tuning::add_scratch(&mut workload, recorded.shape, &candidates);
    Some(workload)
}

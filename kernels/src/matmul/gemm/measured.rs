//! The product of many rows, measured.

use super::super::WeightFormat;
use super::super::product::Shape;
use super::super::tuning::{self, Recorded};
use super::{
    DIRECT, DIRECT_SUBGROUP, DIRECT_SUBGROUP_4, DIRECT_SUBGROUP_8, DIRECT_SUBGROUP_16, FEW, FEWEST, LARGE,
    MEDIUM, Plan, SMALL, SPEC, Tile, choice, is_planned, rule,
};
use crate::caps::Caps;
use crate::choice::{Data, Launch};
use crate::spec::{Ways, Workload};

/// The rule's choice first, then what else may be selected on a device.
pub(super) fn candidates(caps: &Caps, shape: Shape, format: WeightFormat) -> Vec<Plan> {
    let rule = rule(caps, shape, &[format]);
    let allowed = |variant: &str| !caps.is_blocked(SPEC.name, variant, Data::Weights(format));
    let mut all = Vec::new();
    if caps.cpu_variants() {
        let smallest = caps.subgroup_size.filter(|_| caps.subgroups()).map_or(1, |(smallest, _)| smallest);
        let tiles = [DIRECT_SUBGROUP, DIRECT_SUBGROUP_16, DIRECT_SUBGROUP_8, DIRECT_SUBGROUP_4, DIRECT];
        let may = |tile: &Tile| {
            is_planned(*tile, format)
                && tile.lanes <= smallest
                && allowed(if tile.lanes > 1 { "direct_subgroup" } else { "direct" })
        };
        all.extend(tiles.into_iter().filter(may).map(|tile| Plan::whole(tile, shape)));
    } else if allowed("tiled") {
        for tile in [LARGE, MEDIUM, SMALL, FEW, FEWEST] {
            all.extend(Plan::candidates(caps, tile, shape, tile.bk8, allowed("split_k")));
        }
    }
    tuning::rule_first(rule, all)
}

/// The plans for what was recorded.
pub(super) fn ways(caps: &Caps, launch: &Launch) -> Option<Ways> {
    let recorded = Recorded::whole(launch)?;
    let Recorded { shape, format, .. } = recorded;
    let candidates = candidates(caps, shape, format);
    let way = |plan: Plan| {
        recorded.way_of_plan(caps, &SPEC, plan, |split, epilogue| {
            choice(plan.tile, shape, format, split, epilogue)
        })
    };
    Some(tuning::ways(caps, shape, candidates.into_iter().map(way)))
}

/// Data of its shape.
pub(super) fn workload(caps: &Caps, launch: &Launch) -> Option<Workload> {
    let recorded = Recorded::whole(launch)?;
    let Recorded { shape, format, epilogue, .. } = recorded;
    let tile = rule(caps, shape, &[format]).tile;
    let choice = choice(tile, shape, format, false, epilogue);
    let bias = recorded.bias();
    let mut workload = recorded.workload(recorded.x(), recorded.weights(), &bias, choice);
    tuning::add_scratch(&mut workload, shape, &candidates(caps, shape, format));
    Some(workload)
}

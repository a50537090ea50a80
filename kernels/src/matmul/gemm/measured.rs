//! The product of many rows, measured.

use super::super::product::{EpilogueKind, Params, Shape};
use super::super::tuning::{self, Recorded};
use super::super::{WeightFormat, split_sum};
use super::{
    BK8, DIRECT, DIRECT_SUBGROUP, DIRECT_SUBGROUP_4, DIRECT_SUBGROUP_8, LARGE, MAX_SPLITS, MEDIUM,
    MIN_SPLIT_K8, Plan, SMALL, SPEC, Tile, choice, rule,
};
use crate::caps::Caps;
use crate::choice::{Data, Launch};
use crate::rows;
use crate::spec::{Contents, Step, Way, Ways, Workload};

/// Workgroups from which on more of them, by splitting, are not worth a try.
const MANY_GROUPS: u64 = 1024;

/// The rule's choice first, then what else may be selected on a device.
pub(super) fn candidates(caps: &Caps, shape: Shape, format: WeightFormat) -> Vec<Plan> {
    let rule = rule(caps, shape, &[format]);
    let allowed = |variant: &str| !caps.is_blocked(SPEC.name, variant, Data::Weights(format));
    let whole = |tile| Plan { tile, splits: 1, split_k8: shape.num_k8() };
    let mut all = Vec::new();
    if caps.cpu_variants() {
        let smallest = caps.subgroup_size.filter(|_| caps.subgroups()).map_or(1, |(smallest, _)| smallest);
        let tiles = [DIRECT_SUBGROUP, DIRECT_SUBGROUP_8, DIRECT_SUBGROUP_4, DIRECT];
        let may = |tile: &Tile| {
            tile.lanes <= smallest && allowed(if tile.lanes > 1 { "direct_subgroup" } else { "direct" })
        };
        all.extend(tiles.into_iter().filter(may).map(whole));
    } else {
        for tile in [LARGE, MEDIUM, SMALL] {
            if allowed("tiled") {
                all.push(whole(tile));
            }
            let few = tile.groups(shape.m, shape.n) < MANY_GROUPS;
            let counts = [2, 4, 8, MAX_SPLITS].into_iter().filter(|_| few && allowed("split_k"));
            all.extend(counts.filter_map(|splits| split(caps, shape, tile, splits)));
        }
    }
    all.dedup();
    tuning::rule_first(rule, all)
}

/// A tile whose channels are divided, if there are enough of them and memory for the sums.
fn split(caps: &Caps, shape: Shape, tile: Tile, wanted: u32) -> Option<Plan> {
    let num_k8 = shape.num_k8();
    let split_k8 = num_k8.div_ceil(wanted).next_multiple_of(BK8);
    let splits = num_k8.div_ceil(split_k8);
    let bytes = rows::product([4, splits.into(), shape.m.into(), shape.n.into()]);
    let fits = splits > 1 && split_k8 >= MIN_SPLIT_K8 && bytes <= caps.binding_bytes;
    fits.then_some(Plan { tile, splits, split_k8 })
}

/// The index of the buffer for partial sums.
const SCRATCH: usize = 6;

/// The plans for what was recorded.
pub(super) fn ways(caps: &Caps, launch: &Launch) -> Option<Ways> {
    let recorded = Recorded::whole(launch)?;
    let Recorded { shape, format, epilogue, .. } = recorded;
    let way = |plan: Plan| {
        let Plan { tile, splits, split_k8 } = plan;
        let grid = tile.grid(shape.m, shape.n, splits);
        let whole = recorded.params_of(shape);
        if splits == 1 {
            let params = bytemuck::bytes_of(&whole).to_vec();
            let launch = Launch { choice: choice(tile, shape, format, false, epilogue), params, grid };
            return tuning::way(plan.to_string(), &SPEC, launch);
        }
        let params = Params { y_stride: shape.n, split_k8, ..whole };
        let product = Step {
            spec: &SPEC,
            launch: Launch {
                choice: choice(tile, shape, format, true, EpilogueKind::default()),
                params: bytemuck::bytes_of(&params).to_vec(),
                grid,
            },
            bindings: vec![0, 1, 2, 3, 4, SCRATCH],
        };
        let factors = [whole.alpha, whole.soft_cap];
        let (params, grid) = split_sum::launch(caps, epilogue, factors, [splits, shape.m, shape.n]);
        let sum = Step {
            spec: &split_sum::SPEC,
            launch: Launch {
                choice: split_sum::choice(epilogue),
                params: bytemuck::bytes_of(&params).to_vec(),
                grid,
            },
            bindings: vec![SCRATCH, 3, 4, 5],
        };
        Way { name: plan.to_string(), steps: vec![product, sum] }
    };
    let ways = candidates(caps, shape, format).into_iter().map(way);
    let ways = ways.filter(|way| way.steps.iter().all(|step| caps.runs(&step.launch.choice))).collect();
    Some(Ways { shape: tuning::class_of_rows(shape), ways })
}

/// Data of its shape.
pub(super) fn workload(caps: &Caps, launch: &Launch) -> Option<Workload> {
    let recorded = Recorded::whole(launch)?;
    let Recorded { shape, format, epilogue, .. } = recorded;
    let tile = rule(caps, shape, &[format]).tile;
    let choice = choice(tile, shape, format, false, epilogue);
    let bias = recorded.bias();
    let mut workload = recorded.workload(recorded.x(), recorded.weights(), &bias, choice);
    let splits = candidates(caps, shape, format).iter().map(|plan| plan.splits).max().unwrap_or(1);
    if splits > 1 {
        let bytes = rows::product([4, splits.into(), shape.m.into(), shape.n.into()]);
        workload.buffers.push(Contents::repeated(&[0f32; 4], bytes));
    }
    Some(workload)
}

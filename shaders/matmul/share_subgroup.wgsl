// The contract of share_load.wgsl on subgroups of at least LANES: each invocation loads one row in LANES and hands it
// to the others.
//!enable subgroups
struct Lane { @builtin(subgroup_invocation_id) sub_id: u32, @builtin(local_invocation_index) id: u32 }
fn own_x8(row: u32, k8: u32, lane: Lane) -> Vec8 { return load_x8(min(row + lane.sub_id % LANES, p.num_m - 1u), k8); }
fn share_x8(own: Vec8, row: u32, i: u32, k8: u32) -> Vec8 {
    return Vec8(subgroupShuffle(own.lo, i), subgroupShuffle(own.hi, i));
}

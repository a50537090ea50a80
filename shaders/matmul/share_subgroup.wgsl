// The contract of share_load.wgsl on subgroups of at least LANES: each invocation loads one row in LANES and hands it
// to the others.
//!enable subgroups
struct Lane { @builtin(subgroup_invocation_id) sub_id: u32, @builtin(local_invocation_index) id: u32 }
fn own_row(row: u32, end: u32, lane: Lane) -> u32 { return x_row(min(row + lane.sub_id % LANES, end - 1u)); }
fn own_x8(own_row: u32, k8: u32) -> Vec8 { return load_x8(own_row, k8); }
fn share_x8(own: Vec8, row: u32, i: u32, end: u32, k8: u32) -> Vec8 {
    return Vec8(subgroupShuffle(own.lo, i), subgroupShuffle(own.hi, i));
}

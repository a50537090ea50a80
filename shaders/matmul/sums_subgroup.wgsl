// The contract of sums.wgsl on subgroup operations. Any subgroup size from 4 up; x-only workgroups.
//!enable subgroups
struct Lane {
    @builtin(local_invocation_index) id: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) sub_id: u32,
}
const SUM_PARTS: u32 = WG / 4u;
var<workgroup> sums: array<f32, NUM_SUMS * SUM_PARTS>;

fn put_sum(i: u32, share: f32, lane: Lane) {
    let partial = subgroupAdd(share);
    if lane.sub_id == 0u { sums[i * SUM_PARTS + lane.id / lane.size] = partial; }
}

fn finish_sums(count: u32, lane: Lane) { workgroupBarrier(); }

fn get_sum(i: u32, lane: Lane) -> f32 {
    var sum = 0.0;
    for (var j = 0u; j < (WG + lane.size - 1u) / lane.size; j++) { sum += sums[i * SUM_PARTS + j]; }
    return sum;
}

fn free_sums() { workgroupBarrier(); }

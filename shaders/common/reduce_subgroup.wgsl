// The contract of reduce.wgsl on subgroup operations: one reduction within each subgroup, then the partial
// results through workgroup memory. Any subgroup size from 4 up; x-only workgroups.
//!enable subgroups
struct Lane {
    @builtin(local_invocation_index) id: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) sub_id: u32,
}
var<workgroup> reduce_scratch: array<f32, WG / 4u>;

fn workgroup_sum(x: f32, lane: Lane) -> f32 {
    let partial = subgroupAdd(x);
    if lane.sub_id == 0u { reduce_scratch[lane.id / lane.size] = partial; }
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < (WG + lane.size - 1u) / lane.size; i++) { sum += reduce_scratch[i]; }
    workgroupBarrier();                                  // scratch is free for the next call
    return sum;
}

fn workgroup_max(x: f32, lane: Lane) -> f32 {
    let partial = subgroupMax(x);
    if lane.sub_id == 0u { reduce_scratch[lane.id / lane.size] = partial; }
    workgroupBarrier();
    var result = -3.0e38;
    for (var i = 0u; i < (WG + lane.size - 1u) / lane.size; i++) { result = max(result, reduce_scratch[i]); }
    workgroupBarrier();
    return result;
}

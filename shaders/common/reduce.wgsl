// Sums and maxima over a workgroup through workgroup memory. The importer declares `const WG: u32`
// (a power of two, the workgroup size) and calls from uniform control flow. Every invocation gets the result.
struct Lane { @builtin(local_invocation_index) id: u32 }
var<workgroup> reduce_scratch: array<f32, WG>;

fn workgroup_sum(x: f32, lane: Lane) -> f32 {
    reduce_scratch[lane.id] = x;
    workgroupBarrier();
    for (var span = WG / 2u; span > 0u; span /= 2u) {
        if lane.id < span { reduce_scratch[lane.id] += reduce_scratch[lane.id + span]; }
        workgroupBarrier();
    }
    let sum = reduce_scratch[0];
    workgroupBarrier();                                  // scratch is free for the next call
    return sum;
}

fn workgroup_max(x: f32, lane: Lane) -> f32 {
    reduce_scratch[lane.id] = x;
    workgroupBarrier();
    for (var span = WG / 2u; span > 0u; span /= 2u) {
        if lane.id < span {
            reduce_scratch[lane.id] = max(reduce_scratch[lane.id], reduce_scratch[lane.id + span]);
        }
        workgroupBarrier();
    }
    let result = reduce_scratch[0];
    workgroupBarrier();
    return result;
}

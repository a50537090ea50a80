// The best (key, index) pair of a workgroup through workgroup memory: the largest key, the lowest index among
// equals. The importer declares `const WG: u32` (a power of two, the workgroup size) and calls from uniform
// control flow. Every invocation gets the result.
struct Lane { @builtin(local_invocation_index) id: u32 }
//!import common/order_key.wgsl
var<workgroup> reduce_keys: array<u32, WG>;
var<workgroup> reduce_indices: array<u32, WG>;

fn workgroup_best(own: Best, lane: Lane) -> Best {
    reduce_keys[lane.id] = own.key;
    reduce_indices[lane.id] = own.index;
    workgroupBarrier();
    for (var span = WG / 2u; span > 0u; span /= 2u) {
        if lane.id < span {
            let other = Best(reduce_keys[lane.id + span], reduce_indices[lane.id + span]);
            if better(other, Best(reduce_keys[lane.id], reduce_indices[lane.id])) {
                reduce_keys[lane.id] = other.key;
                reduce_indices[lane.id] = other.index;
            }
        }
        workgroupBarrier();
    }
    let best = Best(reduce_keys[0], reduce_indices[0]);
    workgroupBarrier();                                  // scratch is free for the next call
    return best;
}

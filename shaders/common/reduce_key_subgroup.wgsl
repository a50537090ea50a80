// The contract of reduce_key.wgsl on subgroup operations. Any subgroup size from 4 up; x-only workgroups.
//!enable subgroups
struct Lane {
    @builtin(local_invocation_index) id: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) sub_id: u32,
}
//!import common/order_key.wgsl
var<workgroup> reduce_keys: array<u32, (WG + 3u) / 4u>;
var<workgroup> reduce_indices: array<u32, (WG + 3u) / 4u>;

fn workgroup_best(own: Best, lane: Lane) -> Best {
    let key = subgroupMax(own.key);
    let index = subgroupMin(select(NONE, own.index, own.key == key));
    if lane.sub_id == 0u {
        reduce_keys[lane.id / lane.size] = key;
        reduce_indices[lane.id / lane.size] = index;
    }
    workgroupBarrier();
    var best = Best(0u, NONE);
    for (var i = 0u; i < (WG + lane.size - 1u) / lane.size; i++) {
        let other = Best(reduce_keys[i], reduce_indices[i]);
        if better(other, best) { best = other; }
    }
    workgroupBarrier();                                  // scratch is free for the next call
    return best;
}

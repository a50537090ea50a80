// The contract of reduce_key.wgsl on subgroup operations. Any subgroup size from 4 up; x-only workgroups.
//!enable subgroups
struct Lane {
    @builtin(local_invocation_index) id: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) sub_id: u32,
}
struct Best { key: u32, index: u32 }
const NONE: u32 = 0xffffffffu;
var<workgroup> reduce_keys: array<u32, WG / 4u>;
var<workgroup> reduce_indices: array<u32, WG / 4u>;

fn order_key(x: f32) -> u32 {
    var bits = bitcast<u32>(x);
    if (bits & 0x7fffffffu) > 0x7f800000u { return 0u; }
    if bits == 0x80000000u { bits = 0u; }
    return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

fn key_value(key: u32) -> f32 {
    if key == 0u { return -3.4028234e38; }
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key >> 31u) == 1u));
}

fn better(a: Best, b: Best) -> bool { return a.key > b.key || (a.key == b.key && a.index < b.index); }

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

// The best (key, index) pair of a workgroup through workgroup memory: the largest key, the lowest index among
// equals. The importer declares `const WG: u32` (a power of two, the workgroup size) and calls from uniform
// control flow. Every invocation gets the result.
struct Lane { @builtin(local_invocation_index) id: u32 }
struct Best { key: u32, index: u32 }
const NONE: u32 = 0xffffffffu;
var<workgroup> reduce_keys: array<u32, WG>;
var<workgroup> reduce_indices: array<u32, WG>;

// Order of f32 as order of u32. NaN is 0, below everything; -0 equals 0.
fn order_key(x: f32) -> u32 {
    var bits = bitcast<u32>(x);
    if (bits & 0x7fffffffu) > 0x7f800000u { return 0u; }
    if bits == 0x80000000u { bits = 0u; }
    return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

// Back from order_key; the most negative f32 for NaN.
fn key_value(key: u32) -> f32 {
    if key == 0u { return -3.4028234e38; }
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key >> 31u) == 1u));
}

fn better(a: Best, b: Best) -> bool { return a.key > b.key || (a.key == b.key && a.index < b.index); }

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

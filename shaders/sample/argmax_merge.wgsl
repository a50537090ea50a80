// The second stage of argmax: the best of the parts of each row. One workgroup per row.
const WG: u32 = 64u; //!spec
struct Params { num_rows: u32, num_parts: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parts: array<u32>;           // [S, num_parts, 2]: key, index
@group(0) @binding(2) var<storage, read_write> best: array<u32>;      // [S]
//!import common/reduce_key.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    var own = Best(0u, NONE);
    for (var i = lane.id; i < p.num_parts; i += WG) {
        let at = 2u * (group.x * p.num_parts + i);
        let other = Best(parts[at], parts[at + 1u]);
        if better(other, own) { own = other; }
    }
    let found = workgroup_best(own, lane);
    if lane.id == 0u { best[group.x] = found.index; }
}

// The second stage of argmax, and the state of the next decode step. One workgroup per sequence.
const WG: u32 = 64u; //!spec
struct Params { num_seqs: u32, num_parts: u32, capacity: u32 }
//!import common/batch.wgsl
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parts: array<u32>;           // [S, num_parts, 2]: key, index
@group(0) @binding(2) var<storage, read_write> token_ids: array<u32>; // [S]
@group(0) @binding(3) var<storage, read_write> positions: array<u32>; // [S]
@group(0) @binding(4) var<storage, read_write> seqs: array<Seq>;      // [S]
@group(0) @binding(5) var<storage, read_write> out: array<u32>;       // [S, 1 + capacity]: count, tokens
//!import common/reduce_key.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let s = group.x;
    var own = Best(0u, NONE);
    for (var i = lane.id; i < p.num_parts; i += WG) {
        let at = 2u * (s * p.num_parts + i);
        let other = Best(parts[at], parts[at + 1u]);
        if better(other, own) { own = other; }
    }
    let found = workgroup_best(own, lane);
    if lane.id == 0u {
        let out_base = s * (1u + p.capacity);
        let count = out[out_base];
        if count < p.capacity {
            out[out_base + 1u + count] = found.index;
            out[out_base] = count + 1u;
        }
        token_ids[s] = found.index;
        positions[s] += 1u;
        seqs[s].kv_len += 1u;
    }
}

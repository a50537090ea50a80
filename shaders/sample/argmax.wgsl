// The index of the largest logit of each part of each row, the lowest one among equals; NaN is never chosen.
// Workgroup (part, row). Writes (key, index); with FINAL (one part per row) the index alone, 0xffffffff if every
// logit is NaN.
const WG: u32 = 256u; //!spec
const FINAL: bool = false; //!spec
struct Params { num_rows: u32, vocab_size: u32, part_len: u32, num_parts: u32 }
//!import common/lanes.wgsl
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<V>;            // [S, V]
@group(0) @binding(2) var<storage, read_write> best: array<u32>;      // [S, num_parts, 2], or [S]
//!import common/reduce_key.wgsl
//!import sample/scan.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let row = group.y;
    let row_len = p.vocab_size / VEC;
    let first = group.x * p.part_len;                    // in units of V
    let last = min(first + p.part_len, row_len);
    var own = Best(0u, NONE);
    for (var i = first + lane.id; i < last; i += WG) {
        own = scan(own, logits[row * row_len + i], i);
    }
    let found = workgroup_best(own, lane);
    if lane.id == 0u {
        if FINAL {
            best[row] = found.index;
        } else {
            let at = 2u * (row * p.num_parts + group.x);
            best[at] = found.key;
            best[at + 1u] = found.index;
        }
    }
}

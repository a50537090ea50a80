// The k largest of each part of each row, descending, the lowest index first among equals; NaN is never chosen.
// Workgroup (part, row). k rounds: each invocation offers the best element of its strip behind the last one that
// it gave, the workgroup picks one, and only the invocation that gave it looks again.
// Stage 1 reads logits, stage 2 (MERGE) the lists of the parts.
const WG: u32 = 64u; //!spec
struct Params { num_rows: u32, row_len: u32, part_len: u32, num_parts: u32, top_k: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;          // [S, V]
//!import common/reduce_key.wgsl
//!import sample/top_k_parts.wgsl

fn next(row_base: u32, first: u32, last: u32, before: Best) -> Best {
    var best = Best(0u, NONE);
    for (var i = first; i < last; i += WG) {
        let e = element(row_base, i);
        if e.key > 0u && better(before, e) && better(e, best) { best = e; }
    }
    return best;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let row_base = group.y * p.row_len;
    let first = group.x * p.part_len + lane.id;
    let last = min((group.x + 1u) * p.part_len, p.row_len);
    var own = next(row_base, first, last, Best(NONE, 0u));
    for (var round = 0u; round < p.top_k; round++) {
        let found = workgroup_best(own, lane);
        if lane.id == 0u { put((group.y * p.num_parts + group.x) * p.top_k + round, found); }
        if own.index == found.index && own.key > 0u { own = next(row_base, first, last, found); }
    }
}

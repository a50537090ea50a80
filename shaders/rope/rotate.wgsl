// Rotary position embedding: each pair (a, b) becomes (a cos - b sin, b cos + a sin)           (Su et al. 2021)
// One workgroup per token; four channels per invocation and step.
const WG: u32 = 256u; //!spec
const STYLE: u32 = 1u; //!spec
struct Params {
    num_tokens: u32, num_heads: u32, head_dim: u32, num_pairs: u32, max_positions: u32, block: u32, grid_x: u32
}
struct Row { base: u32, position: u32, block: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> positions: array<u32>;       // [T]
//!import rope/io.wgsl
//!import rope/angle_table.wgsl
//!import rope/quad.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let t = group.y * p.grid_x + group.x;
    if t >= p.num_tokens { return; }
    let position = positions[t];
    let num_quads = (p.head_dim + 3u) / 4u;
    for (var u = lane; u < p.num_heads * num_quads; u += WG) {
        let c = u % num_quads * 4u;
        let row = Row((t * p.num_heads + u / num_quads) * p.head_dim, position, p.block);
        put(row.base + c, quad(row, c), p.head_dim - c);
    }
}

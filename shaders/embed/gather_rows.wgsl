// y[s] = x[rows[s]]; zeros where rows[s] >= T. One workgroup per row.
const WG: u32 = 256u; //!spec
struct Params { num_rows: u32, num_channels: u32, num_tokens: u32, grid_x: u32 }
//!import common/lanes.wgsl
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<V>;                 // [T, C]
@group(0) @binding(2) var<storage, read> rows: array<u32>;            // [S]
@group(0) @binding(3) var<storage, read_write> y: array<V>;           // [S, C]

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let s = group.y * p.grid_x + group.x;
    if s >= p.num_rows { return; }
    let t = rows[s];
    let row_len = p.num_channels / VEC;
    for (var i = lane; i < row_len; i += WG) {
        var v = V(0.0);
        if t < p.num_tokens { v = x[t * row_len + i]; }
        y[s * row_len + i] = v;
    }
}

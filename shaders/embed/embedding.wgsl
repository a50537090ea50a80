// y[t] = scale · table[token_ids[t]]. One workgroup per token; four channels per invocation and step.
// The table is split by rows: this dispatch writes the tokens of rows row0 .. row0 + rows, and zeros for ids >= n
// if it holds row 0. Rows of a dense table are padded to groups of 8 channels.
const WG: u32 = 256u; //!spec
struct Params {
    num_tokens: u32, num_channels: u32, num_k8: u32, row0: u32, rows: u32, n: u32, scale: f32, grid_x: u32
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> token_ids: array<u32>;       // [T]
//!import embed/table_f32.wgsl
//!import embed/put.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let t = group.y * p.grid_x + group.x;
    if t >= p.num_tokens { return; }
    let id = token_ids[t];
    let known = id < p.n;
    if known && (id < p.row0 || id - p.row0 >= p.rows) { return; }
    if !known && p.row0 > 0u { return; }
    let row = select(0u, id - p.row0, known);
    for (var i = lane; i < (p.num_channels + 3u) / 4u; i += WG) {
        put(t, i, select(vec4<f32>(0.0), load4(row, i) * p.scale, known));
    }
}

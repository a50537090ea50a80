// dst = src: the rate at which a kernel can read and write. Work is divided as in read.wgsl; what is written
// again, the last vec4 beyond the end too, is the same.
const WG: u32 = 64u; //!spec
const VEC: u32 = 8u; //!spec
struct Params { len: u32, grid_x: u32, chunks: u32, groups: u32 }   // len in vec4s
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;       // [len]
@group(0) @binding(2) var<storage, read_write> dst: array<vec4<f32>>; // [len]

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group_id: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    let group = group_id.y * p.grid_x + group_id.x;
    if group >= p.groups { return; }
    let first = (group % p.chunks) * WG * VEC + id;
    for (var i = 0u; i < VEC; i++) { //!unroll
        let at = min(first + i * WG, p.len - 1u);
        dst[at] = src[at];
    } //!unroll
}

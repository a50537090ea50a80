// dst = src: the bandwidth that a kernel can have. One invocation copies VEC vec4s, WG apart.
const WG: u32 = 64u; //!spec
const VEC: u32 = 8u; //!spec
struct Params { len: u32, grid_x: u32, pad0: u32, pad1: u32 }       // len in vec4s
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dst: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    let base = (group.y * p.grid_x + group.x) * WG * VEC + id;
    for (var i = 0u; i < VEC; i++) { //!unroll
        if base + i * WG < p.len { dst[base + i * WG] = src[base + i * WG]; }
    } //!unroll
}

// y = the bits of src, folded by exclusive or: the rate at which a kernel can read. In each round a workgroup reads WG VEC
// vec4s side by side; workgroups from `chunks` on take the same chunks again, so that a small set is read often. No
// branches: a CPU driver takes both sides of each.
const WG: u32 = 64u; //!spec
const VEC: u32 = 8u; //!spec
const ROUNDS: u32 = 4u; //!spec
struct Params { len: u32, grid_x: u32, chunks: u32, groups: u32 }   // len in vec4s
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<u32>>;       // [len]
@group(0) @binding(2) var<storage, read_write> y: array<u32>;         // [groups, WG]

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group_id: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    let group = group_id.y * p.grid_x + group_id.x;
    if group >= p.groups { return; }
    let first = (group % p.chunks) * WG * VEC * ROUNDS + id;
    var bits = vec4<u32>(0u);
    for (var r = 0u; r < ROUNDS; r++) {
        let at = first + r * WG * VEC;
        for (var i = 0u; i < VEC; i++) { //!unroll
            bits ^= select(vec4<u32>(0u), src[min(at + i * WG, p.len - 1u)], at + i * WG < p.len);
        } //!unroll
    }
    y[group * WG + id] = bits.x ^ bits.y ^ bits.z ^ bits.w;
}

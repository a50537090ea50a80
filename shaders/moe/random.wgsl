// routes[t] = (floor(E · u), 1): u in [0, 1) from 24 bits of a hash of seed, layer and position, never of the batch         (THOR)
//   h = pcg(position + pcg(layer + pcg(seed))), pcg the permuted congruential generator RXS-M-XS of 32 bits
const WG: u32 = 256u; //!spec
struct Params { num_tokens: u32, num_experts: u32, seed: u32, layer: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> positions: array<u32>;           // [T]
@group(0) @binding(2) var<storage, read_write> routes: array<vec2<u32>>;  // [T]: expert, bits of 1

fn pcg(x: u32) -> u32 {
    let state = x * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let t = (group.y * p.grid_x + group.x) * WG + lane;
    if t >= p.num_tokens { return; }
    let bits = pcg(positions[t] + pcg(p.layer + pcg(p.seed))) >> 8u;
    // floor(bits E / 2^24) in two halves, exact for E of up to 2^20.
    let expert = ((bits >> 12u) * p.num_experts + (((bits & 0xfffu) * p.num_experts) >> 12u)) >> 12u;
    routes[t] = vec2<u32>(expert, 0x3f800000u);
}

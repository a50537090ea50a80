// y[t] = residual[t] + alpha Σ_j weight[t, j] · o[t, j]     over the slots of a token, in their order
// Slots whose expert is none of num_experts are left out; what o holds there is not read. One V per invocation.
const WG: u32 = 256u; //!spec
const HAS_RESIDUAL: bool = false; //!spec
struct Params {
    num_tokens: u32, num_slots: u32, num_channels: u32, grid_x: u32, alpha: f32, num_experts: u32
}
//!import common/lanes.wgsl
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> o: array<V>;                     // [T, K, N]
@group(0) @binding(2) var<storage, read> routes: array<vec2<u32>>;        // [T, K]: expert, bits of its weight
@group(0) @binding(3) var<storage, read> residual: array<V>;              // [T, N]
@group(0) @binding(4) var<storage, read_write> y: array<V>;               // [T, N]

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.y * p.grid_x + group.x) * WG + lane;
    let width = p.num_channels / VEC;
    if i >= p.num_tokens * width { return; }
    let token = i / width;
    var sum = V(0.0);
    for (var slot = token * p.num_slots; slot < (token + 1u) * p.num_slots; slot++) {
        let route = routes[slot];
        if route.x < p.num_experts { sum += bitcast<f32>(route.y) * o[slot * width + i % width]; }
    }
    if HAS_RESIDUAL { y[i] = residual[i] + p.alpha * sum; } else { y[i] = p.alpha * sum; }
}

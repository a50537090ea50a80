// y = act(gate) · up                                                                (Dauphin 2017, Shazeer 2020)
// CLAMPED: y = (clamp(up, -limit, limit) + 1) · g · sigmoid(alpha · g), g = min(gate, limit)          (gpt-oss)
// One V of the result per invocation. Where gate and up lie is the part `glu_load`.
const WG: u32 = 256u; //!spec
const CLAMPED: bool = false; //!spec
struct Params { len: u32, num_channels: u32, alpha: f32, limit: f32, grid_x: u32 }
struct Pair { gate: V, up: V }
//!import common/lanes.wgsl
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> gate: array<V>;              // [T, F], or both of them [T, 2F]
@group(0) @binding(2) var<storage, read> up: array<V>;                // [T, F], or the same as gate
@group(0) @binding(3) var<storage, read_write> y: array<V>;           // [T, F]
//!import elementwise/select_activation.wgsl
//!import elementwise/each.wgsl
//!import elementwise/glu_load.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.y * p.grid_x + group.x) * WG + lane;
    if i >= p.len / VEC { return; }
    let pair = load_pair(i);
    if CLAMPED {
        let g = min(pair.gate, V(p.limit));
        y[i] = (clamp(pair.up, V(-p.limit), V(p.limit)) + V(1.0)) * g / (V(1.0) + exp(min(-p.alpha * g, V(87.0))));
    } else {
        y[i] = act(pair.gate) * pair.up;
    }
}

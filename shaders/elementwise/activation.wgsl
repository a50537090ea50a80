// y = act(x). One V per invocation.
const WG: u32 = 256u; //!spec
struct Params { len: u32, grid_x: u32 }
//!import common/lanes.wgsl
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<V>;                 // [N]
@group(0) @binding(2) var<storage, read_write> y: array<V>;           // [N]
//!import elementwise/select_activation.wgsl
//!import elementwise/each.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.y * p.grid_x + group.x) * WG + lane;
    if i >= p.len / VEC { return; }
    y[i] = act(x[i]);
}

// y = a + alpha · b; with BROADCAST, b is one row [C] that is added to each row of a. One V per invocation.
const WG: u32 = 256u; //!spec
const BROADCAST: bool = false; //!spec
struct Params { len: u32, num_channels: u32, alpha: f32, grid_x: u32 }
//!import common/lanes.wgsl
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<V>;                 // [N]
@group(0) @binding(2) var<storage, read> b: array<V>;                 // [N], or [C]
@group(0) @binding(3) var<storage, read_write> y: array<V>;           // [N]

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.y * p.grid_x + group.x) * WG + lane;
    if i >= p.len / VEC { return; }
    var j = i;
    if BROADCAST { j = i % (p.num_channels / VEC); }
    y[i] = a[i] + p.alpha * b[j];
}

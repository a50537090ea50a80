// Workgroups that have work, and others that leave at once:  y[g, i] = WG g + i  for g < count[0].
const WG: u32 = 64u; //!spec
struct Params { grid_x: u32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> count: array<u32>;            // [1]
@group(0) @binding(2) var<storage, read_write> y: array<u32>;          // [groups, WG]

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    let g = group.y * p.grid_x + group.x;
    if g >= count[0] { return; }
    y[g * WG + id] = g * WG + id;
}

// Values that wander around a workgroup, one place for each barrier: y[g, i] = x[(i + rounds) % WG]. Two halves of the memory
// take turns, so that one barrier a round suffices.
const WG: u32 = 64u; //!spec
struct Params { rounds: u32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;                // [WG]
@group(0) @binding(2) var<storage, read_write> y: array<u32>;          // [groups, WG]
var<workgroup> places: array<u32, 2u * WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    var value = x[id];
    for (var r = 0u; r < p.rounds; r++) {
        let half = r % 2u * WG;
        places[half + id] = value;
        workgroupBarrier();
        value = places[half + (id + 1u) % WG];
    }
    y[group.x * WG + id] = value;
}

// weight'[t, s] = weight[t, s] · act(W[slot[t, s]] · x[t])     experts of one neuron: what the rows of the values are weighted with
// The table is split by rows: this dispatch writes the slots of rows row0 .. row0 + rows, and with row 0 those that no row has (0).
// One workgroup per slot.
const WG: u32 = 64u; //!spec
// 0 nothing, 1 SiLU, 2 GELU, 3 ReLU
const ACT: u32 = 0u; //!spec
const NONE: u32 = 0xffffffffu;
struct Params {
    num_slots: u32, token_slots: u32, num_channels: u32, num_k8: u32, row0: u32, rows: u32, n: u32, grid_x: u32
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> routes: array<vec2<u32>>;    // [T, S]: slot, bits of its weight
//!import embed/table_f32.wgsl
//!import memory/x.wgsl
@group(0) @binding(5) var<storage, read_write> y: array<vec2<u32>>;   // [T, S]: slot, bits of its weight
//!import common/reduce.wgsl
//!import common/activation.wgsl

fn act(x: f32) -> f32 {
    switch ACT {
        case 1u: { return act_silu(x); }
        case 2u: { return act_gelu_erf(x); }
        case 3u: { return act_relu(x); }
        default: { return x; }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let at = group.y * p.grid_x + group.x;
    if at >= p.num_slots { return; }
    let route = routes[at];
    let row = route.x - p.row0;
    if row >= p.rows {
        if route.x >= p.n && p.row0 == 0u && lane.id == 0u { y[at] = vec2<u32>(NONE, 0u); }
        return;
    }
    var own = 0.0;
    for (var i = lane.id; i < (p.num_channels + 3u) / 4u; i += WG) {
        own += dot(load4(row, i), x4(at / p.token_slots, i));
    }
    let sum = workgroup_sum(own, lane);
    if lane.id == 0u { y[at] = vec2<u32>(route.x, bitcast<u32>(bitcast<f32>(route.y) * act(sum))); }
}

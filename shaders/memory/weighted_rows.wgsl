// y[t] = residual[t] + alpha Σ_s weight[t, s] · W[slot[t, s]]     in the order of s: rows of a table of values, gathered and added up
// The table is split by rows: this dispatch takes the slots of rows row0 .. row0 + rows; those that no row has give nothing.
// Four channels of a token per invocation; the loads of four slots are under way at once.
const WG: u32 = 64u; //!spec
const HAS_RESIDUAL: bool = false; //!spec
// Whether y holds what the parts before gave.
const ADDS: bool = false; //!spec
const AT_ONCE: u32 = 4u;
struct Params {
    num_tokens: u32, num_slots: u32, num_channels: u32, num_k8: u32, row0: u32, rows: u32, grid_x: u32, alpha: f32
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> routes: array<vec2<u32>>;    // [T, S]: slot, bits of its weight
//!import embed/table_f32.wgsl
//!import memory/y.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let token = group.y * p.grid_x + group.x;
    if token >= p.num_tokens { return; }
    let i = group.z * WG + lane;
    if i >= (p.num_channels + 3u) / 4u { return; }
    let first = token * p.num_slots;
    var sum = vec4<f32>(0.0);
    for (var s = 0u; s < p.num_slots; s += AT_ONCE) {
        var weights: array<f32, AT_ONCE>;
        var values: array<vec4<f32>, AT_ONCE>;
        for (var j = 0u; j < AT_ONCE; j++) { //!unroll
            let route = routes[first + min(s + j, p.num_slots - 1u)];
            let is_here = s + j < p.num_slots && route.x - p.row0 < p.rows;
            weights[j] = bitcast<f32>(route.y);
            values[j] = load4(select(0u, route.x - p.row0, is_here), i);
            if !is_here { weights[j] = 0.0; values[j] = vec4<f32>(0.0); }
        } //!unroll
        for (var j = 0u; j < AT_ONCE; j++) { //!unroll
            sum = fma(vec4<f32>(weights[j]), values[j], sum);
        } //!unroll
    }
    put(token, i, p.alpha * sum);
}

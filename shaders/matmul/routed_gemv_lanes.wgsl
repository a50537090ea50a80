// The products of gemv_lanes.wgsl with the matrices of experts [E, N, K]: routes.wgsl says which.
const WG: u32 = 8u; //!spec
const LANES: u32 = 8u; //!spec
const ROWS: u32 = 2u; //!spec
const COLS: u32 = 1u; //!spec
const RMS_SUMS: u32 = 0u; //!spec
const LAYER_NORM: bool = false; //!spec
const LAYER_NORM_BIAS: bool = false; //!spec
const_assert WG == LANES && COLS == 1u && !LAYER_NORM && !LAYER_NORM_BIAS;
//!enable subgroups
//!import matmul/gemv_params.wgsl
@group(0) @binding(7) var<storage, read> routes: array<vec2<u32>>;    // [T, num_slots]
//!slot lane_weights
//!end
//!import matmul/store_lane.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first_n = (group.y * p.grid_x + group.x) * LANES * ROWS;
    if first_n >= p.num_n { return; }
    let z = group.z;
    if !WEIGHTED && !is_here(z) { return; }
    token = z;
    let n0 = first_n + lane * ROWS;
    var mean: array<f32, COLS>;
    var rstd: array<f32, COLS>;
    var sum_sq: array<f32, COLS>;
    var total: array<f32, ROWS * COLS>;
    let first = select(z, z * p.num_slots, WEIGHTED);
    let end = first + select(1u, p.num_slots, WEIGHTED);
    for (var slot = first; slot < end; slot++) {
        if !is_here(slot) { continue; }
        let x0 = slot / p.x_slots;
        let w0 = expert_row(slot);
        var acc: array<f32, ROWS * COLS>;
        for (var i = 0u; i < ROWS * COLS; i++) { //!unroll
            acc[i] = 0.0;
        } //!unroll
        //!import matmul/gemv_lanes_loop.wgsl
        let weight = select(1.0, bitcast<f32>(routes[slot].y), WEIGHTED);
        for (var i = 0u; i < ROWS * COLS; i++) { //!unroll
            total[i] = fma(weight, acc[i], total[i]);
        } //!unroll
    }
    var scale = 1.0;
    if RMS_SUMS > 0u { scale = inverseSqrt(subgroupAdd(sum_sq[0]) / f32(p.num_k) + p.eps); }
    for (var i = 0u; i < ROWS / 2u; i++) { //!unroll
        store_two(z, n0 + 2u * i, scale * total[2u * i], scale * total[2u * i + 1u]);
    } //!unroll
}

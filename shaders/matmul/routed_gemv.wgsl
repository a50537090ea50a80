// The products of gemv.wgsl with the matrices of experts [E, N, K]: routes.wgsl says which.
const WG: u32 = 64u; //!spec
const ROWS: u32 = 4u; //!spec
const COLS: u32 = 1u; //!spec
const STEP8: u32 = 1u; //!spec
const RMS_SUMS: u32 = 0u; //!spec
const LAYER_NORM: bool = false; //!spec
const LAYER_NORM_BIAS: bool = false; //!spec
const NORM_ADD: bool = false;
const_assert COLS == 1u && !LAYER_NORM && !LAYER_NORM_BIAS;
const NUM_SUMS: u32 = ROWS * COLS + RMS_SUMS;
//!import matmul/gemv_params.wgsl
@group(0) @binding(7) var<storage, read> routes: array<vec2<u32>>;    // [T, num_slots]
//!import matmul/store_sums.wgsl
fn add_stream8(row: u32, k8: u32, x8: Vec8, scale: f32) -> Vec8 { return x8; }
fn keep_sum8(row: u32, k8: u32, s: Vec8) {}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let n0 = (group.y * p.grid_x + group.x) * ROWS;
    if n0 >= p.num_n { return; }
    let z = group.z;
    if !WEIGHTED && !is_here(z) { return; }
    token = z;
    const keeps_sum = false;
    var behind: array<f32, COLS>;
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
        //!import matmul/gemv_loop.wgsl
        let weight = select(1.0, bitcast<f32>(routes[slot].y), WEIGHTED);
        for (var i = 0u; i < ROWS * COLS; i++) { //!unroll
            total[i] = fma(weight, acc[i], total[i]);
        } //!unroll
    }
    for (var i = 0u; i < ROWS * COLS; i++) { //!unroll
        put_sum(i, total[i], lane);
    } //!unroll
    for (var c = 0u; c < RMS_SUMS; c++) { //!unroll
        put_sum(ROWS * COLS + c, sum_sq[c], lane);
    } //!unroll
    finish_sums(NUM_SUMS, lane);
    store_sums(z, n0, lane);
}

// The products of gemv_int.wgsl with the matrices of experts [E, N, K]: routes.wgsl says which.
const WG: u32 = 64u; //!spec
const ROWS: u32 = 4u; //!spec
const COLS: u32 = 1u; //!spec
const RMS_SUMS: u32 = 0u; //!spec
const_assert COLS == 1u && RMS_SUMS == 0u;
const NUM_SUMS: u32 = ROWS * COLS;
//!import matmul/gemv_int_params.wgsl
@group(0) @binding(8) var<storage, read> routes: array<vec2<u32>>;    // [T, num_slots]
//!import matmul/store_sums.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let n0 = (group.y * p.grid_x + group.x) * ROWS;
    if n0 >= p.num_n { return; }
    let z = group.z;
    if !WEIGHTED && !is_here(z) { return; }
    token = z;
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
        //!import matmul/gemv_int_loop.wgsl
        let weight = select(1.0, bitcast<f32>(routes[slot].y), WEIGHTED);
        for (var i = 0u; i < ROWS * COLS; i++) { //!unroll
            total[i] = fma(weight, acc[i], total[i]);
        } //!unroll
    }
    for (var i = 0u; i < ROWS * COLS; i++) { //!unroll
        put_sum(i, total[i], lane);
    } //!unroll
    finish_sums(NUM_SUMS, lane);
    store_sums(z, n0, lane);
}

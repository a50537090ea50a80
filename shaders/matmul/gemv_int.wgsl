// y[m, n] = epilogue(Σ_k norm(x)[m, k] · W[n, k])   with integer x and W, for the few rows of x of a decode step
// One workgroup computes ROWS columns of y for all COLS rows of x. An invocation visits every WG-th block of 32
// channels; a block of x, once loaded and quantised, serves ROWS rows of W. Sums within a block are exact integers.
const WG: u32 = 64u; //!spec
const ROWS: u32 = 4u; //!spec
const COLS: u32 = 1u; //!spec
// COLS if x is RMS-normalised, else 0.
const RMS_SUMS: u32 = 0u; //!spec
const NUM_SUMS: u32 = ROWS * COLS + RMS_SUMS;
//!import matmul/gemv_int_params.wgsl
//!import matmul/store_sums.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let n0 = (group.y * p.grid_x + group.x) * ROWS;
    if n0 >= p.num_n { return; }
    const x0 = 0u;
    const w0 = 0u;
    var acc: array<f32, ROWS * COLS>;
    var sum_sq: array<f32, COLS>;
    //!import matmul/gemv_int_loop.wgsl
    for (var i = 0u; i < ROWS * COLS; i++) { //!unroll
        put_sum(i, acc[i], lane);
    } //!unroll
    for (var c = 0u; c < RMS_SUMS; c++) { //!unroll
        put_sum(ROWS * COLS + c, sum_sq[c], lane);
    } //!unroll
    finish_sums(NUM_SUMS, lane);
    store_sums(0u, n0, lane);
}

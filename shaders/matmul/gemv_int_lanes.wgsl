// y[m, n] = epilogue(Σ_k norm(x)[m, k] · W[n, k])   with integer x and W, for the few rows of x of a decode step, on CPUs
// Same interface as gemv_int.wgsl. One subgroup of LANES invocations computes LANES * ROWS columns of y; an invocation
// owns ROWS of them and streams their rows of W by itself. Each lane quantises every LANES-th block of x and hands it
// to the others by shuffles, already in the form that the multiplications take.
const WG: u32 = 8u; //!spec
const LANES: u32 = 8u; //!spec
const ROWS: u32 = 4u; //!spec
const COLS: u32 = 1u; //!spec
// COLS if x is RMS-normalised, else 0.
const RMS_SUMS: u32 = 0u; //!spec
const_assert WG == LANES;
//!enable subgroups
//!import matmul/gemv_int_params.wgsl
//!import matmul/int_pairs.wgsl
//!import matmul/int_scales.wgsl
//!import matmul/store_lane.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = (group.y * p.grid_x + group.x) * LANES * ROWS;
    if first >= p.num_n { return; }
    let n0 = first + lane * ROWS;
    const x0 = 0u;
    const w0 = 0u;
    var acc: array<f32, ROWS * COLS>;
    var sum_sq: array<f32, COLS>;
    var scales: array<RowScales, ROWS>;
    //!import matmul/gemv_int_lanes_loop.wgsl
    for (var c = 0u; c < COLS; c++) { //!unroll
        var scale = 1.0;
        if RMS_SUMS > 0u { scale = inverseSqrt(subgroupAdd(sum_sq[c]) / f32(p.num_k) + p.eps); }
        for (var i = 0u; i < ROWS / 2u; i++) { //!unroll
            store_two(c, n0 + 2u * i, scale * acc[2u * i * COLS + c], scale * acc[(2u * i + 1u) * COLS + c]);
        } //!unroll
    } //!unroll
}

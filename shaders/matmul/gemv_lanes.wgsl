// y[m, n] = epilogue(Σ_k norm(x)[m, k] · W[n, k])        for the few rows of x of a decode step, on CPUs
// Same interface as gemv.wgsl. One subgroup of LANES invocations computes LANES * ROWS columns of y; an invocation
// owns ROWS of them and streams their rows of W by itself, so no dot product is reduced across lanes. Each lane
// loads (and normalises) every LANES-th group of 8 channels of x and hands it to the others by broadcast: a load
// costs a CPU driver one scalar access per lane, a broadcast a register move.
const WG: u32 = 8u; //!spec
const LANES: u32 = 8u; //!spec
const ROWS: u32 = 2u; //!spec
const COLS: u32 = 1u; //!spec
// COLS if x is RMS-normalised, else 0.
const RMS_SUMS: u32 = 0u; //!spec
const LAYER_NORM: bool = false; //!spec
const LAYER_NORM_BIAS: bool = false; //!spec
const_assert WG == LANES;
//!enable subgroups
//!import matmul/gemv_params.wgsl
//!slot lane_weights
//!end
//!import matmul/store_lane.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = (group.y * p.grid_x + group.x) * LANES * ROWS;
    if first >= p.num_n { return; }
    let n0 = first + lane * ROWS;
    const x0 = 0u;
    const w0 = 0u;
    var mean: array<f32, COLS>;
    var rstd: array<f32, COLS>;
    if LAYER_NORM {
        for (var c = 0u; c < COLS; c++) { //!unroll
            var share = 0.0;
            for (var k8 = lane; k8 < p.num_k8; k8 += LANES) {
                let v = load_x8(c, k8);
                share += dot(v.lo + v.hi, vec4<f32>(1.0));
            }
            mean[c] = subgroupAdd(share) / f32(p.num_k);
            share = 0.0;
            for (var k8 = lane; k8 < p.num_k8; k8 += LANES) {
                let v = load_x8(c, k8);
                let lo = (v.lo - mean[c]) * inside(8u * k8);
                let hi = (v.hi - mean[c]) * inside(8u * k8 + 4u);
                share += dot(lo, lo) + dot(hi, hi);
            }
            rstd[c] = inverseSqrt(subgroupAdd(share) / f32(p.num_k) + p.eps);
        } //!unroll
    }
    var acc: array<f32, ROWS * COLS>;
    var sum_sq: array<f32, COLS>;
    //!import matmul/gemv_lanes_loop.wgsl
    for (var c = 0u; c < COLS; c++) { //!unroll
        var scale = 1.0;
        if RMS_SUMS > 0u { scale = inverseSqrt(subgroupAdd(sum_sq[c]) / f32(p.num_k) + p.eps); }
        for (var i = 0u; i < ROWS / 2u; i++) { //!unroll
            store_two(c, n0 + 2u * i, scale * acc[2u * i * COLS + c], scale * acc[(2u * i + 1u) * COLS + c]);
        } //!unroll
    } //!unroll
}

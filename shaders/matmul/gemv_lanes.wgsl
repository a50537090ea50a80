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

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = (group.y * p.grid_x + group.x) * LANES * ROWS;
    if first >= p.num_n { return; }
    let n0 = first + lane * ROWS;
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
    for (var base = 0u; base < p.num_k8; base += LANES) {
        var mine: array<Vec8, COLS>;
        let k8 = min(base + lane, p.num_k8 - 1u);
        // A lane beyond the last group loads the last one again; it is not counted and nobody asks for it.
        let counted = select(0.0, 1.0, base + lane < p.num_k8);
        let norm_w = load_norm_weight8(k8);
        for (var c = 0u; c < COLS; c++) { //!unroll
            mine[c] = load_x8(c, k8);
            if RMS_SUMS > 0u {
                sum_sq[c] += counted * (dot(mine[c].lo, mine[c].lo) + dot(mine[c].hi, mine[c].hi));
                mine[c].lo *= norm_w.lo;
                mine[c].hi *= norm_w.hi;
            }
            if LAYER_NORM {
                mine[c].lo = (mine[c].lo - mean[c]) * rstd[c] * norm_w.lo;
                mine[c].hi = (mine[c].hi - mean[c]) * rstd[c] * norm_w.hi;
            }
            if LAYER_NORM_BIAS {
                let norm_b = load_norm_bias8(k8);
                mine[c].lo += norm_b.lo;
                mine[c].hi += norm_b.hi;
            }
        } //!unroll
        //!slot products
        for (var j = 0u; j < LANES; j++) { //!unroll
            if base + j < p.num_k8 {
                var weights: array<Vec8, ROWS>;
                for (var r = 0u; r < ROWS; r++) { //!unroll
                    weights[r] = load_w8(min(n0 + r, p.num_n - 1u), base + j);
                } //!unroll
                for (var c = 0u; c < COLS; c++) { //!unroll
                    let lo = subgroupBroadcast(mine[c].lo, j);
                    let hi = subgroupBroadcast(mine[c].hi, j);
                    for (var r = 0u; r < ROWS; r++) { //!unroll
                        acc[r * COLS + c] = dot_add(weights[r].hi, hi, dot_add(weights[r].lo, lo, acc[r * COLS + c]));
                    } //!unroll
                } //!unroll
            }
        } //!unroll
        //!end
    }
    for (var c = 0u; c < COLS; c++) { //!unroll
        var scale = 1.0;
        if RMS_SUMS > 0u { scale = inverseSqrt(subgroupAdd(sum_sq[c]) / f32(p.num_k) + p.eps); }
        if GLU {
            for (var i = 0u; i < ROWS / 2u; i++) { //!unroll
                let r = 2u * i;
                if n0 + r < p.num_n {
                    store_glu(c, p.n_base + n0 + r, scale * acc[r * COLS + c], scale * acc[(r + 1u) * COLS + c]);
                }
            } //!unroll
        } else {
            for (var r = 0u; r < ROWS; r++) { //!unroll
                if n0 + r < p.num_n { store(c, p.n_base + n0 + r, scale * acc[r * COLS + c]); }
            } //!unroll
        }
    } //!unroll
}

// y[m, n] = epilogue(Σ_k norm(x)[m, k] · W[n, k])        for the few rows of x of a decode step
// One workgroup computes ROWS columns of y for all COLS rows of x. An invocation visits every WG-th STEP8 groups of 8
// channels; an x value, once loaded and normalised, serves ROWS dot products. RMS normalisation costs one more
// sum: its scale is applied behind the dot product. Layer normalisation takes mean and variance first, in two
// passes, because x may have an offset much larger than its spread.
// With NORM_ADD the norm behind the block before comes first, in a pass of its own:  s = stream + norm(x)  takes the place
// of x. Every workgroup computes it; the first one keeps it.
const WG: u32 = 64u; //!spec
const ROWS: u32 = 4u; //!spec
const COLS: u32 = 1u; //!spec
// Over 1 where it divides the groups of a row: what weights share, their scale above all, is then read less often.
const STEP8: u32 = 1u; //!spec
// COLS if x is RMS-normalised, else 0.
const RMS_SUMS: u32 = 0u; //!spec
const LAYER_NORM: bool = false; //!spec
const LAYER_NORM_BIAS: bool = false; //!spec
// Not with LAYER_NORM.
const NORM_ADD: bool = false; //!spec
const NUM_SUMS: u32 = ROWS * COLS + RMS_SUMS;
//!import matmul/gemv_params.wgsl
//!import matmul/store_sums.wgsl
//!slot norm_add
fn add_stream8(row: u32, k8: u32, x8: Vec8, scale: f32) -> Vec8 { return x8; }
fn keep_sum8(row: u32, k8: u32, s: Vec8) {}
//!end

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let n0 = (group.y * p.grid_x + group.x) * ROWS;
    if n0 >= p.num_n { return; }
    const x0 = 0u;
    const w0 = 0u;
    var behind: array<f32, COLS>;
    if NORM_ADD {
        for (var c = 0u; c < COLS; c++) { //!unroll
            var share = 0.0;
            for (var k8 = lane.id; k8 < p.num_k8; k8 += WG) {
                let v = load_x8(c, k8);
                share += dot(v.lo, v.lo) + dot(v.hi, v.hi);
            }
            put_sum(c, share, lane);
        } //!unroll
        finish_sums(COLS, lane);
        for (var c = 0u; c < COLS; c++) { //!unroll
            behind[c] = inverseSqrt(get_sum(c, lane) / f32(p.num_k) + p.norm_add_eps);
        } //!unroll
        free_sums();
    }
    let keeps_sum = NORM_ADD && n0 + p.n_base == 0u;
    var mean: array<f32, COLS>;
    var rstd: array<f32, COLS>;
    if LAYER_NORM {
        for (var c = 0u; c < COLS; c++) { //!unroll
            var share = 0.0;
            for (var k8 = lane.id; k8 < p.num_k8; k8 += WG) {
                let v = load_x8(c, k8);
                share += dot(v.lo + v.hi, vec4<f32>(1.0));
            }
            put_sum(c, share, lane);
        } //!unroll
        finish_sums(COLS, lane);
        for (var c = 0u; c < COLS; c++) { //!unroll
            mean[c] = get_sum(c, lane) / f32(p.num_k);
        } //!unroll
        free_sums();
        for (var c = 0u; c < COLS; c++) { //!unroll
            var share = 0.0;
            for (var k8 = lane.id; k8 < p.num_k8; k8 += WG) {
                let v = load_x8(c, k8);
                let lo = (v.lo - mean[c]) * inside(8u * k8);
                let hi = (v.hi - mean[c]) * inside(8u * k8 + 4u);
                share += dot(lo, lo) + dot(hi, hi);
            }
            put_sum(c, share, lane);
        } //!unroll
        finish_sums(COLS, lane);
        for (var c = 0u; c < COLS; c++) { //!unroll
            rstd[c] = inverseSqrt(get_sum(c, lane) / f32(p.num_k) + p.eps);
        } //!unroll
        free_sums();
    }
    var acc: array<f32, ROWS * COLS>;
    var sum_sq: array<f32, COLS>;
    //!import matmul/gemv_loop.wgsl
    for (var i = 0u; i < ROWS * COLS; i++) { //!unroll
        put_sum(i, acc[i], lane);
    } //!unroll
    for (var c = 0u; c < RMS_SUMS; c++) { //!unroll
        put_sum(ROWS * COLS + c, sum_sq[c], lane);
    } //!unroll
    finish_sums(NUM_SUMS, lane);
    store_sums(0u, n0, lane);
}

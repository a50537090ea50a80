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

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = (group.y * p.grid_x + group.x) * LANES * ROWS;
    if first >= p.num_n { return; }
    let n0 = first + lane * ROWS;
    var acc: array<f32, ROWS * COLS>;
    var sum_sq: array<f32, COLS>;
    var scales: array<RowScales, ROWS>;
    for (var base = 0u; base < num_blocks(); base += LANES) {
        var mine: array<XBlock, COLS>;
        var pairs: array<XPairs, COLS>;
        // A lane beyond the last block loads the last one again; it is not counted and nobody asks for it.
        let b = min(base + lane, num_blocks() - 1u);
        for (var c = 0u; c < COLS; c++) { //!unroll
            mine[c] = x_block(c, b);
            pairs[c] = x_pairs(mine[c]);
            sum_sq[c] += select(0.0, mine[c].sum_sq, base + lane < num_blocks());
        } //!unroll
        let count = min(LANES, num_blocks() - base);
        for (var j = 0u; j < count; j++) {
            var q: array<Codes32, ROWS>;
            for (var r = 0u; r < ROWS; r++) { //!unroll
                let row = min(n0 + r, p.num_n - 1u);
                q[r] = codes32(row, base + j);
                scales[r] = next_scales(scales[r], row, base, j);
            } //!unroll
            for (var c = 0u; c < COLS; c++) { //!unroll
                let a = XPairs(subgroupShuffle(pairs[c].even_lo, j), subgroupShuffle(pairs[c].odd_lo, j),
                               subgroupShuffle(pairs[c].even_hi, j), subgroupShuffle(pairs[c].odd_hi, j));
                let sums = subgroupShuffle(mine[c].sums, j);
                let scale = subgroupShuffle(mine[c].scale, j);
                for (var r = 0u; r < ROWS; r++) { //!unroll
                    let product = block_product(scales[r].now, pair_dots(q[r], a, sums), sums);
                    acc[r * COLS + c] = fma(scale, product, acc[r * COLS + c]);
                } //!unroll
            } //!unroll
        }
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

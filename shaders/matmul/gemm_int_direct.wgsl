// y[m, n] = epilogue(Σ_k x[m, k] · W[n, k])   with integer x and W, without workgroup memory, for CPUs
// One subgroup of LANES invocations computes TM rows and LANES * TN columns of y; an invocation owns TN columns and
// streams their rows of W by itself. Each lane loads one row in LANES of x, brings its block into the form that the
// multiplications take and hands it to the others. Rows and columns beyond the edge repeat the last one and are not
// stored.
const TM: u32 = 8u; //!spec
const TN: u32 = 2u; //!spec
const LANES: u32 = 8u; //!spec
const WG: u32 = LANES;
const OWN: u32 = (TM + 7u) / 8u;
const_assert LANES == 8u;
//!enable subgroups
//!import matmul/gemm_int_params.wgsl
//!import matmul/int_pairs.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let rows = tile_rows(group.y, TM);
    if GATHERS && rows.first >= rows.end { return; }
    let m0 = rows.first;
    let n0 = (group.x * LANES + lane) * TN;
    let w0 = rows.w0;
    var own_rows: array<u32, OWN>;
    for (var o = 0u; o < OWN; o++) { //!unroll
        own_rows[o] = x_row(min(m0 + 8u * o + lane, rows.end - 1u));
    } //!unroll
    var acc: array<f32, TM * TN>;
    for (var block = 0u; block < num_blocks(); block++) {
        var mine: array<XBlock, OWN>;
        var pairs: array<XPairs, OWN>;
        for (var o = 0u; o < OWN; o++) { //!unroll
            mine[o] = x_block(own_rows[o], block);
            pairs[o] = x_pairs(mine[o]);
        } //!unroll
        var q: array<Codes32, TN>;
        var s: array<BlockScale, TN>;
        for (var j = 0u; j < TN; j++) { //!unroll
            let row = w0 + min(n0 + j, p.num_n - 1u);
            q[j] = codes32(row, block);
            s[j] = block_scale(row, block);
        } //!unroll
        for (var i = 0u; i < TM; i++) { //!unroll
            let a = XPairs(subgroupBroadcast(pairs[i / 8u].even_lo, i % 8u), subgroupBroadcast(pairs[i / 8u].odd_lo, i % 8u),
                           subgroupBroadcast(pairs[i / 8u].even_hi, i % 8u), subgroupBroadcast(pairs[i / 8u].odd_hi, i % 8u));
            let sums = subgroupBroadcast(mine[i / 8u].sums, i % 8u);
            let scale = subgroupBroadcast(mine[i / 8u].scale, i % 8u);
            for (var j = 0u; j < TN; j++) { //!unroll
                acc[i * TN + j] = fma(scale, block_product(s[j], pair_dots(q[j], a, sums), sums), acc[i * TN + j]);
            } //!unroll
        } //!unroll
    }
    for (var i = 0u; i < TM; i++) { //!unroll
        for (var h = 0u; h < TN / 2u; h++) { //!unroll
            store_pair(rows.end, m0 + i, n0 + 2u * h, 0u, acc[i * TN + 2u * h], acc[i * TN + 2u * h + 1u]);
        } //!unroll
    } //!unroll
}

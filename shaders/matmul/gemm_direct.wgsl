// y[m, n] = epilogue(Σ_k x[m, k] · W[n, k]) without workgroup memory, for CPUs: barriers are dear there and the
// caches do what tiles in workgroup memory do on a GPU. One invocation computes TM x TN of y; the TX invocations
// of a workgroup lie side by side along n. Rows and columns beyond the edge repeat the last one and are not stored.
const TM: u32 = 8u; //!spec
const TN: u32 = 8u; //!spec
const TX: u32 = 8u; //!spec
// Rows of x that the parts share among the lanes of a subgroup, which is at least as large.
const LANES: u32 = 1u; //!spec
//!import matmul/gemm_params.wgsl
//!import matmul/share_load.wgsl
//!slot block_weights
//!end

@compute @workgroup_size(TX)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let rows = tile_rows(group.y, TM);
    if GATHERS && rows.first >= rows.end { return; }
    let m0 = rows.first;
    let n0 = (group.x * TX + lane.id) * TN;
    let w0 = rows.w0;
    var own_rows: array<u32, (TM + LANES - 1u) / LANES>;
    for (var b = 0u; b < (TM + LANES - 1u) / LANES; b++) { //!unroll
        own_rows[b] = own_row(m0 + LANES * b, rows.end, lane);
    } //!unroll
    var acc: array<f32, TM * TN>;
    //!slot products
    for (var k8 = 0u; k8 < p.num_k8; k8++) {
        var own: array<Vec8, (TM + LANES - 1u) / LANES>;
        for (var b = 0u; b < (TM + LANES - 1u) / LANES; b++) { //!unroll
            own[b] = own_x8(own_rows[b], k8);
        } //!unroll
        var frag_w: array<Vec8, TN>;
        for (var j = 0u; j < TN; j++) { //!unroll
            frag_w[j] = load_w8(w0 + min(n0 + j, p.num_n - 1u), k8);
        } //!unroll
        for (var i = 0u; i < TM; i++) { //!unroll
            let frag_x = share_x8(own[i / LANES], m0 + i / LANES * LANES, i % LANES, rows.end, k8);
            for (var j = 0u; j < TN; j++) { //!unroll
                acc[i * TN + j] = dot_add(frag_x.hi, frag_w[j].hi, dot_add(frag_x.lo, frag_w[j].lo, acc[i * TN + j]));
            } //!unroll
        } //!unroll
    }
    //!end
    for (var i = 0u; i < TM; i++) { //!unroll
        let row = m0 + i;
        for (var h = 0u; h < TN / 2u; h++) { //!unroll
            let n = n0 + 2u * h;
            let column = p.n_base + n;
            if row < rows.end && n < p.num_n {
                if GLU {
                    store_glu(y_row(row), column, acc[i * TN + 2u * h], acc[i * TN + 2u * h + 1u]);
                } else {
                    store(y_row(row), column, acc[i * TN + 2u * h]);
                    if n + 1u < p.num_n { store(y_row(row), column + 1u, acc[i * TN + 2u * h + 1u]); }
                }
            }
        } //!unroll
    } //!unroll
}

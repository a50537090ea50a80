// y[m, n] = epilogue(Σ_k x[m, k] · W[n, k])
// One workgroup computes a BM x BN tile of y from tiles of x and W in workgroup memory, an invocation TM x TN of
// it. Both operands are contiguous along k, so tiles hold vec4s of 4 channels and nothing is transposed. Tiles are
// nested arrays, indexed as invocations own them: their constant parts become offsets of an address. One vec4 of
// padding spreads the rows of an invocation over the banks. With SPLIT, workgroups along z share the channels and write
// plain sums, which split_sum.wgsl adds in a fixed order.
const TM: u32 = 8u; //!spec
const TN: u32 = 8u; //!spec
const TX: u32 = 8u; //!spec
const TY: u32 = 16u; //!spec
const BK8: u32 = 2u; //!spec
const SPLIT: bool = false; //!spec
const WG: u32 = TX * TY;
const BM: u32 = TM * TY;
const BN: u32 = TN * TX;
// Groups of 8 channels that an invocation brings into each tile; the last of them may be too many.
const FILL_X: u32 = (BM * BK8 + WG - 1u) / WG;
const FILL_W: u32 = (BN * BK8 + WG - 1u) / WG;
//!import matmul/gemm_params.wgsl
var<workgroup> tile_x: array<array<array<vec4<f32>, TM + 1u>, TY>, 2u * BK8>;    // [BK/4, TY, TM + 1]
var<workgroup> tile_w: array<array<array<vec4<f32>, TX + 1u>, TN>, 2u * BK8>;    // [BK/4, TN, TX + 1]

// Invocation tx owns the column pairs 2 tx, 2 tx + 1 of each stretch of 2 TX columns: gate and up of GLU meet in
// one invocation. Neighbours read neighbouring vec4s.
fn owned(column: u32) -> u32 { return column / (2u * TX) * 2u + column % 2u; }      // the how manieth of its owner
fn owner(column: u32) -> u32 { return column % (2u * TX) / 2u; }

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    let tx = id % TX;
    let ty = id / TX;
    let rows = tile_rows(group.y, BM);
    if GATHERS && rows.first >= rows.end { return; }
    let m0 = rows.first;
    let n0 = group.x * BN;
    let w0 = rows.w0;
    var x_rows: array<u32, FILL_X>;
    if GATHERS {
        for (var i = 0u; i < FILL_X; i++) { //!unroll
            x_rows[i] = x_row(min(m0 + (id + WG * i) / BK8, rows.end - 1u));
        } //!unroll
    }
    let k_end = min((group.z + 1u) * p.split_k8, p.num_k8);
    var acc: array<f32, TM * TN>;
    for (var k0 = group.z * p.split_k8; k0 < k_end; k0 += BK8) {
        var x_in: array<Vec8, FILL_X>;                             // all loads are under way before one is waited for
        var w_in: array<Vec8, FILL_W>;
        for (var i = 0u; i < FILL_X; i++) { //!unroll
            let at = id + WG * i;
            let row = m0 + at / BK8;
            let k = k0 + at % BK8;
            x_in[i] = Vec8(vec4<f32>(0.0), vec4<f32>(0.0));
            if at < BM * BK8 && row < rows.end && k < k_end { x_in[i] = load_x8(select(row, x_rows[i], GATHERS), k); }
        } //!unroll
        for (var i = 0u; i < FILL_W; i++) { //!unroll
            let at = id + WG * i;
            let row = n0 + at / BK8;
            let k = k0 + at % BK8;
            w_in[i] = Vec8(vec4<f32>(0.0), vec4<f32>(0.0));
            if at < BN * BK8 && row < p.num_n && k < k_end { w_in[i] = load_w8(w0 + row, k); }
        } //!unroll
        workgroupBarrier();                                        // nobody reads the tiles before any more
        for (var i = 0u; i < FILL_X; i++) { //!unroll
            let at = id + WG * i;
            let row = at / BK8;
            if at < BM * BK8 {
                tile_x[2u * (at % BK8)][row / TM][row % TM] = x_in[i].lo;
                tile_x[2u * (at % BK8) + 1u][row / TM][row % TM] = x_in[i].hi;
            }
        } //!unroll
        for (var i = 0u; i < FILL_W; i++) { //!unroll
            let at = id + WG * i;
            let row = at / BK8;
            if at < BN * BK8 {
                tile_w[2u * (at % BK8)][owned(row)][owner(row)] = w_in[i].lo;
                tile_w[2u * (at % BK8) + 1u][owned(row)][owner(row)] = w_in[i].hi;
            }
        } //!unroll
        workgroupBarrier();
        for (var k = 0u; k < 2u * BK8; k++) {
            var frag_x: array<vec4<f32>, TM>;
            for (var i = 0u; i < TM; i++) { //!unroll
                frag_x[i] = tile_x[k][ty][i];
            } //!unroll
            for (var j = 0u; j < TN; j++) { //!unroll
                let frag_w = tile_w[k][j][tx];
                for (var i = 0u; i < TM; i++) { //!unroll
                    acc[i * TN + j] = dot_add(frag_x[i], frag_w, acc[i * TN + j]);
                } //!unroll
            } //!unroll
        }
    }
    for (var i = 0u; i < TM; i++) { //!unroll
        let row = m0 + ty * TM + i;
        for (var h = 0u; h < TN / 2u; h++) { //!unroll
            let n = n0 + h * 2u * TX + 2u * tx;
            let column = p.n_base + n;
            if row < rows.end && n < p.num_n {
                if SPLIT {
                    let at = (group.z * p.num_m + row) * p.y_stride + column;
                    y[at] = acc[i * TN + 2u * h];
                    if n + 1u < p.num_n { y[at + 1u] = acc[i * TN + 2u * h + 1u]; }
                } else if GLU {
                    store_glu(y_row(row), column, acc[i * TN + 2u * h], acc[i * TN + 2u * h + 1u]);
                } else {
                    store(y_row(row), column, acc[i * TN + 2u * h]);
                    if n + 1u < p.num_n { store(y_row(row), column + 1u, acc[i * TN + 2u * h + 1u]); }
                }
            }
        } //!unroll
    } //!unroll
}

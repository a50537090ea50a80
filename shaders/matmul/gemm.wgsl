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
    let m0 = group.y * BM;
    let n0 = group.x * BN;
    let k_end = min((group.z + 1u) * p.split_k8, p.num_k8);
    var acc: array<f32, TM * TN>;
    for (var k0 = group.z * p.split_k8; k0 < k_end; k0 += BK8) {
        for (var i = id; i < BM * BK8; i += WG) {
            let row = i / BK8;
            let k = i % BK8;
            var v = Vec8(vec4<f32>(0.0), vec4<f32>(0.0));
            if m0 + row < p.num_m && k0 + k < k_end { v = load_x8(m0 + row, k0 + k); }
            tile_x[2u * k][row / TM][row % TM] = v.lo;
            tile_x[2u * k + 1u][row / TM][row % TM] = v.hi;
        }
        for (var i = id; i < BN * BK8; i += WG) {
            let row = i / BK8;
            let k = i % BK8;
            var v = Vec8(vec4<f32>(0.0), vec4<f32>(0.0));
            if n0 + row < p.num_n && k0 + k < k_end { v = load_w8(n0 + row, k0 + k); }
            tile_w[2u * k][owned(row)][owner(row)] = v.lo;
            tile_w[2u * k + 1u][owned(row)][owner(row)] = v.hi;
        }
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
        workgroupBarrier();
    }
    for (var i = 0u; i < TM; i++) { //!unroll
        let row = m0 + ty * TM + i;
        for (var h = 0u; h < TN / 2u; h++) { //!unroll
            let n = n0 + h * 2u * TX + 2u * tx;
            let column = p.n_base + n;
            if row < p.num_m && n < p.num_n {
                if SPLIT {
                    let at = (group.z * p.num_m + row) * p.y_stride + column;
                    y[at] = acc[i * TN + 2u * h];
                    if n + 1u < p.num_n { y[at + 1u] = acc[i * TN + 2u * h + 1u]; }
                } else if GLU {
                    store_glu(row, column, acc[i * TN + 2u * h], acc[i * TN + 2u * h + 1u]);
                } else {
                    store(row, column, acc[i * TN + 2u * h]);
                    if n + 1u < p.num_n { store(row, column + 1u, acc[i * TN + 2u * h + 1u]); }
                }
            }
        } //!unroll
    } //!unroll
}

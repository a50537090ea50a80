// y[m, n] = epilogue(Σ_k x[m, k] · W[n, k])   with integer x and W
// One workgroup computes a BM x BN tile of y from blocks of 32 channels of x and W in workgroup memory, an invocation
// TM x TN of it. Codes are spread to bytes once, when they enter workgroup memory. Sums within a block are exact
// integers; scales and zeros of both sides come in once a block. With SPLIT, workgroups along z share the blocks and write
// plain sums, which split_sum.wgsl adds in a fixed order.
const TM: u32 = 4u; //!spec
const TN: u32 = 4u; //!spec
const TX: u32 = 16u; //!spec
const TY: u32 = 8u; //!spec
const WG: u32 = TX * TY;
const BM: u32 = TM * TY;
const BN: u32 = TN * TX;
const_assert BM + BN <= WG;
//!import matmul/gemm_int_params.wgsl
// The lo and hi words of blocks. Nested arrays, indexed as invocations own them: constant parts become offsets of an
// address. One more row spreads them over the banks.
var<workgroup> x_words: array<array<array<vec4<u32>, TM + 1u>, TY>, 2>;
var<workgroup> x_scale: array<array<vec4<f32>, TM>, TY>;              // scale, the sums as f32 of exact integers
var<workgroup> w_words: array<array<array<vec4<u32>, TX + 1u>, TN>, 2>;
var<workgroup> w_scale: array<array<vec4<f32>, TX>, TN>;              // (s, z) of both halves

// Invocation tx owns the column pairs 2 tx, 2 tx + 1 of each stretch of 2 TX columns: gate and up of GLU meet in
// one invocation.
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
    let own_row = x_row(min(m0 + id, rows.end - 1u));
    var acc: array<f32, TM * TN>;
    let first_block = select(0u, group.z * (p.split_k8 / 4u), SPLIT);
    let end_block = select(num_blocks(), min(first_block + p.split_k8 / 4u, num_blocks()), SPLIT);
    for (var block = first_block; block < end_block; block++) {
        // The first invocations bring in x, the last ones W. Rows beyond the edge repeat the last one and are not stored.
        var x_in: XBlock;
        var q_in: Codes32;
        var s_in: BlockScale;
        if id < BM { x_in = x_block(own_row, block); }
        if id >= WG - BN {
            let row = w0 + min(n0 + id - (WG - BN), p.num_n - 1u);
            q_in = codes32(row, block);
            s_in = block_scale(row, block);
        }
        workgroupBarrier();                                        // nobody reads the tiles before any more
        if id < BM {
            x_words[0][id / TM][id % TM] = x_in.lo;
            x_words[1][id / TM][id % TM] = x_in.hi;
            x_scale[id / TM][id % TM] = vec4<f32>(x_in.scale, f32(x_in.sums.x), f32(x_in.sums.y), 0.0);
        }
        if id >= WG - BN {
            let column = id - (WG - BN);
            w_words[0][owned(column)][owner(column)] = q_in.lo;
            w_words[1][owned(column)][owner(column)] = q_in.hi;
            w_scale[owned(column)][owner(column)] = vec4<f32>(s_in.first, s_in.last);
        }
        workgroupBarrier();
        var q: array<Codes32, TN>;
        var s: array<BlockScale, TN>;
        for (var j = 0u; j < TN; j++) { //!unroll
            q[j] = Codes32(w_words[0][j][tx], w_words[1][j][tx]);
            let v = w_scale[j][tx];
            s[j] = BlockScale(v.xy, v.zw);
        } //!unroll
        for (var i = 0u; i < TM; i++) { //!unroll
            let lo = x_words[0][ty][i];
            let hi = x_words[1][ty][i];
            let v = x_scale[ty][i];
            let sums = vec2<i32>(v.yz);
            for (var j = 0u; j < TN; j++) { //!unroll
                acc[i * TN + j] = fma(v.x, block_product(s[j], block_dots(q[j], lo, hi), sums), acc[i * TN + j]);
            } //!unroll
        } //!unroll
    }
    for (var i = 0u; i < TM; i++) { //!unroll
        for (var h = 0u; h < TN / 2u; h++) { //!unroll
            let n = n0 + h * 2u * TX + 2u * tx;
            store_pair(rows.end, m0 + ty * TM + i, n, group.z, acc[i * TN + 2u * h], acc[i * TN + 2u * h + 1u]);
        } //!unroll
    } //!unroll
}

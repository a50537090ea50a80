// Attention of one new row of each sequence: o = softmax(scale · q kᵀ) v over the keys of one split, for up to GR
// heads of one key head (they share the loads of keys and values), with the natural log of the sum.
// Tiles of 64 keys: 8 invocations share the row of a key, 16 keys at a time; then an invocation owns 4 channels of
// the result and every SUBSETS-th key. Loads of several keys, and then values, are under way before one is waited for.
const WG: u32 = 128u;
const GR: u32 = 4u; //!spec
const HEAD_DIM4: u32 = 16u; //!spec
const VALUE_LANES: u32 = 16u; //!spec
// What is loaded together: vectors of each of the four keys of an invocation, and values.
const DIM_STEPS: u32 = 2u; //!spec
const VALUE_STEPS: u32 = 8u; //!spec
const SUBSETS: u32 = WG / VALUE_LANES;
const KT: u32 = 64u;
const STEPS: u32 = 4u;                                 // of 16 keys
const Q_SIZE: u32 = GR * HEAD_DIM4;
const DIMS: u32 = (HEAD_DIM4 + 7u) / 8u;               // of each of the 8 invocations of a key
const WHOLE_DIMS: bool = HEAD_DIM4 % 8u == 0u;
//!import attention/common.wgsl
//!import attention/split.wgsl
//!import common/dot_add.wgsl
//!slot io
//!import attention/io_vec4.wgsl
//!end
//!slot kv
//!import attention/kv_f32.wgsl
//!end
var<workgroup> q_tile: array<array<vec4<f32>, HEAD_DIM4>, GR>;
var<workgroup> weights: array<array<f32, KT>, 8>;      // scores, then probabilities
var<workgroup> factors: array<f32, 8>;
var<workgroup> scratch: array<vec4<f32>, WG>;
//!slot dots
//!import attention/dots.wgsl
//!end

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    let seq = seqs[group.z];
    if seq.q_len == 0u { return; }
    let gqa = p.num_q_heads / p.num_kv_heads;
    let kv_head = group.y / p.row_blocks;
    let g0 = group.y % p.row_blocks * GR;
    let rows = min(GR, gqa - g0);
    let q_row = seq.q_base * p.num_q_heads + kv_head * gqa + g0;
    let value_dim4 = (p.value_dim + 3u) / 4u;
    let k_head = seq.slot * p.k_slot + kv_head * p.k_head;
    let v_head = seq.slot * p.v_slot + kv_head * p.v_head;
    let keys = split_keys(seq, group.x);
    for (var x = id; x < Q_SIZE; x += WG) {
        q_tile[x / HEAD_DIM4][x % HEAD_DIM4] = load_q4((q_row + min(x / HEAD_DIM4, rows - 1u)) * p.head_dim, x % HEAD_DIM4);
    }
    workgroupBarrier();
    let row = id / 16u;                                            // of the softmax: 16 invocations a row
    let column = id % 16u;
    let channel = id % VALUE_LANES;
    let subset = id / VALUE_LANES;
    var m = M0;
    var l = 0.0;
    var acc: array<vec4<f32>, GR>;
    for (var g = 0u; g < GR; g++) { //!unroll
        acc[g] = vec4<f32>(0.0);
    } //!unroll
    for (var c0 = keys.lo; c0 < keys.hi; c0 += KT) {
        var s: array<f32, STEPS * GR>;
        for (var x = 0u; x < STEPS * GR; x++) { //!unroll
            s[x] = 0.0;
        } //!unroll
        for (var i0 = 0u; i0 < DIMS; i0 += DIM_STEPS) {
            var k4: array<vec4<f32>, STEPS * DIM_STEPS>;
            for (var i = 0u; i < DIM_STEPS; i++) { //!unroll
                let d = id % 8u + 8u * (i0 + i);
                for (var t = 0u; t < STEPS; t++) { //!unroll
                    let base = k_head + min(c0 + 16u * t + id / 8u, keys.hi - 1u) * p.k_token;
                    k4[t * DIM_STEPS + i] = vec4<f32>(0.0);
                    if WHOLE_DIMS || d < HEAD_DIM4 { k4[t * DIM_STEPS + i] = load_k4(base, d); }
                } //!unroll
            } //!unroll
            for (var i = 0u; i < DIM_STEPS; i++) { //!unroll
                let d = id % 8u + 8u * (i0 + i);
                if WHOLE_DIMS || d < HEAD_DIM4 {
                    for (var g = 0u; g < GR; g++) { //!unroll
                        let q4 = q_tile[g][d];
                        for (var t = 0u; t < STEPS; t++) { //!unroll
                            s[t * GR + g] = dot_add(q4, k4[t * DIM_STEPS + i], s[t * GR + g]);
                        } //!unroll
                    } //!unroll
                }
            } //!unroll
        }
        for (var t = 0u; t < STEPS; t++) { //!unroll
            var products: array<f32, GR>;
            for (var g = 0u; g < GR; g++) { //!unroll
                products[g] = s[t * GR + g];
            } //!unroll
            put_scores(products, 16u * t, keys.hi - c0, id);
        } //!unroll
        workgroupBarrier();
        var s4 = vec4<f32>(M0);
        if row < GR {
            s4 = vec4<f32>(
                weights[row][column],
                weights[row][column + 16u],
                weights[row][column + 32u],
                weights[row][column + 48u]);
        }
        scratch[id] = vec4<f32>(max(max(s4.x, s4.y), max(s4.z, s4.w)));
        workgroupBarrier();
        var m_new = m;
        for (var x = 0u; x < 16u; x++) { m_new = max(m_new, scratch[row * 16u + x].x); }
        let p4 = select(vec4<f32>(0.0), exp2(s4 - m_new), s4 > vec4<f32>(0.5 * M0));
        let alpha = rescale(m, m_new);
        l = l * alpha + dot(p4, vec4<f32>(1.0));
        m = m_new;
        if row < GR {
            weights[row][column] = p4.x;
            weights[row][column + 16u] = p4.y;
            weights[row][column + 32u] = p4.z;
            weights[row][column + 48u] = p4.w;
            if column == 0u { factors[row] = alpha; }
        }
        workgroupBarrier();
        for (var g = 0u; g < GR; g++) { //!unroll
            acc[g] *= factors[g];
        } //!unroll
        if channel < value_dim4 {
            let last = min(KT, keys.hi - c0) - 1u;                 // behind it probabilities are 0
            for (var x0 = subset; x0 < KT; x0 += VALUE_STEPS * SUBSETS) {
                var v4: array<vec4<f32>, VALUE_STEPS>;
                for (var t = 0u; t < VALUE_STEPS; t++) { //!unroll
                    v4[t] = load_v4(v_head + (c0 + min(x0 + t * SUBSETS, last)) * p.v_token, channel);
                } //!unroll
                for (var t = 0u; t < VALUE_STEPS; t++) { //!unroll
                    for (var g = 0u; g < GR; g++) { //!unroll
                        acc[g] = fma(vec4<f32>(weights[g][x0 + t * SUBSETS]), v4[t], acc[g]);
                    } //!unroll
                } //!unroll
            }
        }
        workgroupBarrier();
    }
    scratch[id] = vec4<f32>(l);
    workgroupBarrier();
    l = 0.0;
    for (var x = 0u; x < 16u; x++) { l += scratch[row * 16u + x].x; }
    let out_row = group.x * p.num_tokens * p.num_q_heads + q_row;
    if column == 0u && row < GR {
        var factor = 1.0;
        if p.has_sinks != 0u && p.splits == 1u {                   // with more splits the merge adds it
            let sink = sinks[kv_head * gqa + g0 + min(row, rows - 1u)] * LOG2E;
            let m_new = max(m, sink);
            factor = rescale(m, m_new);
            l = l * factor + exp2(max(sink - m_new, -126.0));
            m = m_new;
        }
        factors[row] = select(0.0, factor / max(l, 1.0e-37), l > 0.0);
        if row < rows { lse[out_row + row] = log_sum(m, l); }
    }
    for (var g = 0u; g < rows; g++) {
        workgroupBarrier();
        for (var b = 0u; b < GR; b++) { //!unroll
            if b == g { scratch[id] = acc[b]; }
        } //!unroll
        workgroupBarrier();
        if subset == 0u && channel < value_dim4 {
            var sum = vec4<f32>(0.0);
            for (var x = 0u; x < SUBSETS; x++) { sum += scratch[x * VALUE_LANES + channel]; }
            store_o4((out_row + g) * p.value_dim, channel, sum * factors[g]);
        }
    }
}

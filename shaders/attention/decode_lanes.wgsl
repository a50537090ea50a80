// The contract of decode.wgsl for CPUs behind the API: one subgroup of LANES invocations, no barriers, no workgroup
// memory. A lane owns keys lane + LANES·n of a tile of LANES·KG, then channels 4·(lane + LANES·b) of the result;
// queries and probabilities reach the other lanes by broadcast. GR <= LANES.
//!enable subgroups
const LANES: u32 = 8u; //!spec
const GR: u32 = 4u; //!spec
const KG: u32 = 2u; //!spec
const VALUE_BLOCKS: u32 = 2u; //!spec
const KEYS: u32 = LANES * KG;
//!import attention/common.wgsl
//!import attention/split.wgsl
//!slot io
//!import attention/io_vec4.wgsl
//!end
//!slot kv
//!import attention/kv_f32.wgsl
//!end

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let seq = seqs[group.z];
    if seq.q_len == 0u { return; }
    let gqa = p.num_q_heads / p.num_kv_heads;
    let kv_head = group.y / p.row_blocks;
    let g0 = group.y % p.row_blocks * GR;
    let rows = min(GR, gqa - g0);
    let q_row = seq.q_base * p.num_q_heads + kv_head * gqa + g0;
    let head_dim4 = (p.head_dim + 3u) / 4u;
    let value_dim4 = (p.value_dim + 3u) / 4u;
    let k_head = seq.slot * p.k_slot + kv_head * p.k_head;
    let v_head = seq.slot * p.v_slot + kv_head * p.v_head;
    let keys = split_keys(seq, group.x);
    let own_q = (q_row + min(lane, rows - 1u)) * p.head_dim;
    var m: array<f32, GR>;
    var l: array<f32, GR>;                                         // this lane's part of the sum
    var acc: array<vec4<f32>, GR * VALUE_BLOCKS>;
    for (var i = 0u; i < GR; i++) { //!unroll
        m[i] = M0;
        l[i] = 0.0;
        for (var b = 0u; b < VALUE_BLOCKS; b++) { //!unroll
            acc[i * VALUE_BLOCKS + b] = vec4<f32>(0.0);
        } //!unroll
    } //!unroll
    for (var c0 = keys.lo; c0 < keys.hi; c0 += KEYS) {
        var s: array<f32, GR * KG>;
        for (var x = 0u; x < GR * KG; x++) { //!unroll
            s[x] = 0.0;
        } //!unroll
        for (var d = 0u; d < head_dim4; d++) {
            let own_q4 = load_q4(own_q, d);
            var k4: array<vec4<f32>, KG>;
            for (var g = 0u; g < KG; g++) { //!unroll
                k4[g] = load_k4(k_head + min(c0 + g * LANES + lane, keys.hi - 1u) * p.k_token, d);
            } //!unroll
            for (var i = 0u; i < GR; i++) { //!unroll
                let q4 = subgroupBroadcast(own_q4, i);
                for (var g = 0u; g < KG; g++) { //!unroll
                    s[i * KG + g] += dot(q4, k4[g]);
                } //!unroll
            } //!unroll
        }
        for (var i = 0u; i < GR; i++) { //!unroll
            var m_new = M0;
            for (var g = 0u; g < KG; g++) { //!unroll
                s[i * KG + g] = select(M0, score2(s[i * KG + g]), c0 + g * LANES + lane < keys.hi);
                m_new = max(m_new, s[i * KG + g]);
            } //!unroll
            m_new = max(m[i], subgroupMax(m_new));
            let alpha = rescale(m[i], m_new);
            m[i] = m_new;
            l[i] *= alpha;
            for (var g = 0u; g < KG; g++) { //!unroll
                s[i * KG + g] = select(0.0, exp2(s[i * KG + g] - m_new), s[i * KG + g] > 0.5 * M0);
                l[i] += s[i * KG + g];
            } //!unroll
            for (var b = 0u; b < VALUE_BLOCKS; b++) { //!unroll
                acc[i * VALUE_BLOCKS + b] *= alpha;
            } //!unroll
        } //!unroll
        for (var j = 0u; j < LANES; j++) {
            for (var g = 0u; g < KG; g++) { //!unroll
                let base = v_head + min(c0 + g * LANES + j, keys.hi - 1u) * p.v_token;
                var v4: array<vec4<f32>, VALUE_BLOCKS>;
                for (var b = 0u; b < VALUE_BLOCKS; b++) { //!unroll
                    v4[b] = load_v4(base, min(b * LANES + lane, value_dim4 - 1u));
                } //!unroll
                for (var i = 0u; i < GR; i++) { //!unroll
                    let weight = subgroupShuffle(s[i * KG + g], j);
                    for (var b = 0u; b < VALUE_BLOCKS; b++) { //!unroll
                        acc[i * VALUE_BLOCKS + b] += weight * v4[b];
                    } //!unroll
                } //!unroll
            } //!unroll
        }
    }
    let out_row = group.x * p.num_tokens * p.num_q_heads + q_row;
    for (var i = 0u; i < GR; i++) { //!unroll
        var sum = subgroupAdd(l[i]);
        var m_out = m[i];
        var factor = 1.0;
        if p.has_sinks != 0u && p.splits == 1u {                   // with more splits the merge adds it
            let sink = sinks[kv_head * gqa + g0 + min(i, rows - 1u)] * LOG2E;
            m_out = max(m[i], sink);
            factor = rescale(m[i], m_out);
            sum = sum * factor + exp2(max(sink - m_out, -126.0));
        }
        let scale = select(0.0, factor / max(sum, 1.0e-37), sum > 0.0);
        if i < rows {
            for (var b = 0u; b < VALUE_BLOCKS; b++) { //!unroll
                if b * LANES + lane < value_dim4 {
                    let o4 = acc[i * VALUE_BLOCKS + b] * scale;
                    store_o4((out_row + i) * p.value_dim, b * LANES + lane, o4);
                }
            } //!unroll
            if lane == 0u { lse[out_row + i] = log_sum(m_out, sum); }
        }
    } //!unroll
}

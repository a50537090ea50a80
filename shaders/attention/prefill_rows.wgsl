// o = softmax(scale · q kᵀ) v over the visible keys of each row, online (Dao 2023, Milakov & Gimelshein 2018).
// For CPUs behind the API: no barriers, no workgroup memory. A workgroup is one subgroup of LANES invocations;
// each owns R rows, a row being (token, head of the group of one key head). For a tile of LANES·KG keys an
// invocation holds R·LANES·KG scores in registers; each lane loads its own key and the others take it by broadcast.
// Result rows are accumulated in `o` itself, once for each tile, so that the code does not depend on the head dim.
const LANES: u32 = 8u; //!spec
const R: u32 = 4u; //!spec
const KG: u32 = 4u; //!spec
const KEYS: u32 = LANES * KG;
//!import attention/common.wgsl
//!slot io
//!import attention/io_vec4.wgsl
//!end
//!slot kv
//!import attention/kv_f32.wgsl
//!end

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let seq = seqs[group.z];
    let gqa = p.num_q_heads / p.num_kv_heads;
    let rows = seq.q_len * gqa;
    let row0 = (p.row_tiles - 1u - group.x) * (R * LANES);         // the longest rows first
    if row0 >= rows { return; }
    let head_dim4 = (p.head_dim + 3u) / 4u;
    let value_dim4 = (p.value_dim + 3u) / 4u;
    let k_head = seq.slot * p.k_slot + group.y * p.k_head;
    let v_head = seq.slot * p.v_slot + group.y * p.v_head;
    var q_base: array<u32, R>;
    var out_row: array<u32, R>;
    var lo: array<u32, R>;
    var hi: array<u32, R>;
    var m: array<f32, R>;
    var l: array<f32, R>;
    for (var i = 0u; i < R; i++) { //!unroll
        let row = min(row0 + i * LANES + lane, rows - 1u);
        let token = row / gqa;
        let head = group.y * gqa + row % gqa;
        let keys = visible(seq, token);
        out_row[i] = (seq.q_base + token) * p.num_q_heads + head;
        q_base[i] = out_row[i] * p.head_dim;
        lo[i] = keys.lo;
        hi[i] = keys.hi;
        m[i] = M0;
        l[i] = 0.0;
        if p.has_sinks != 0u {
            m[i] = sinks[head] * LOG2E;
            l[i] = 1.0;
        }
    } //!unroll
    let first_row = visible(seq, row0 / gqa);
    let last_row = visible(seq, min(row0 + R * LANES - 1u, rows - 1u) / gqa);
    let first = first_row.lo;                                      // keys that any row of the tile sees
    let last = last_row.hi;
    for (var c0 = first; c0 < last; c0 += KEYS) {
        var s: array<f32, R * KEYS>;
        for (var x = 0u; x < R * KEYS; x++) { //!unroll
            s[x] = 0.0;
        } //!unroll
        for (var d = 0u; d < head_dim4; d++) {
            var q4: array<vec4<f32>, R>;
            for (var i = 0u; i < R; i++) { //!unroll
                q4[i] = load_q4(q_base[i], d);
            } //!unroll
            for (var g = 0u; g < KG; g++) { //!unroll
                //!slot own_key
                //!end
                for (var j = 0u; j < LANES; j++) { //!unroll
                    //!slot key
                    let k4 = load_k4(k_head + min(c0 + g * LANES + j, last - 1u) * p.k_token, d);
                    //!end
                    for (var i = 0u; i < R; i++) { //!unroll
                        s[i * KEYS + g * LANES + j] += dot(q4[i], k4);
                    } //!unroll
                } //!unroll
            } //!unroll
        }
        let partly_visible = c0 < last_row.lo || c0 + KEYS > first_row.hi;
        var alpha: array<f32, R>;
        for (var i = 0u; i < R; i++) { //!unroll
            var m_new = m[i];
            for (var j = 0u; j < KEYS; j++) { //!unroll
                s[i * KEYS + j] = score2(s[i * KEYS + j]);
            } //!unroll
            if partly_visible {
                for (var j = 0u; j < KEYS; j++) { //!unroll
                    s[i * KEYS + j] = select(M0, s[i * KEYS + j], c0 + j >= lo[i] && c0 + j < hi[i]);
                } //!unroll
            }
            for (var j = 0u; j < KEYS; j++) { //!unroll
                m_new = max(m_new, s[i * KEYS + j]);
            } //!unroll
            var sum = 0.0;
            for (var j = 0u; j < KEYS; j++) { //!unroll
                s[i * KEYS + j] = select(0.0, exp2(s[i * KEYS + j] - m_new), s[i * KEYS + j] > 0.5 * M0);
                sum += s[i * KEYS + j];
            } //!unroll
            alpha[i] = rescale(m[i], m_new);
            l[i] = l[i] * alpha[i] + sum;
            m[i] = m_new;
        } //!unroll
        for (var d = 0u; d < value_dim4; d++) {
            var o4: array<vec4<f32>, R>;
            for (var i = 0u; i < R; i++) { //!unroll
                o4[i] = vec4<f32>(0.0);
                if c0 != first { o4[i] = load_o4(out_row[i] * p.value_dim, d) * alpha[i]; }
            } //!unroll
            for (var g = 0u; g < KG; g++) { //!unroll
                //!slot own_value
                //!end
                for (var j = 0u; j < LANES; j++) { //!unroll
                    //!slot value
                    let v4 = load_v4(v_head + min(c0 + g * LANES + j, last - 1u) * p.v_token, d);
                    //!end
                    for (var i = 0u; i < R; i++) { //!unroll
                        o4[i] += s[i * KEYS + g * LANES + j] * v4;
                    } //!unroll
                } //!unroll
            } //!unroll
            for (var i = 0u; i < R; i++) { //!unroll
                if row0 + i * LANES + lane < rows { store_o4(out_row[i] * p.value_dim, d, o4[i]); }
            } //!unroll
        }
    }
    for (var i = 0u; i < R; i++) { //!unroll
        if row0 + i * LANES + lane < rows {
            let written = first < last && l[i] > 0.0;
            let scale = select(0.0, 1.0 / max(l[i], 1.0e-37), written);
            for (var d = 0u; d < value_dim4; d++) {
                let o4 = load_o4(out_row[i] * p.value_dim, d);
                store_o4(out_row[i] * p.value_dim, d, select(vec4<f32>(0.0), o4 * scale, written));
            }
            lse[out_row[i]] = log_sum(m[i], l[i]);
        }
    } //!unroll
}

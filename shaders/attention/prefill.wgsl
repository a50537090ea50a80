// o = softmax(scale · q kᵀ) v over the visible keys of each row, online (Dao 2023, Milakov & Gimelshein 2018).
// A workgroup computes BR rows, a row being (token, head of the group of one key head), over tiles of BC keys.
// Invocation (ty, tx) of TY x TX owns rows ty + TY·i and, of a tile, keys tx + TX·j (j < 4), then channels
// 4·(tx + TX·c) of the result. q, k and v pass through workgroup memory in chunks of 32 channels; rows of 9 vec4
// are an odd number of 16-byte units, so that successive rows lie in different banks. Tiles are nested arrays, indexed as
// invocations own them: their constant parts become offsets of an address.
const WG: u32 = 128u;
const RT: u32 = 2u; //!spec
const VALUE_CHUNKS: u32 = 2u; //!spec
// Channels, then keys, between two jumps of an inner loop.
const UNROLLED: u32 = 1u; //!spec
const TX: u32 = 8u;
const TY: u32 = WG / TX;
const BR: u32 = RT * TY;
const BC: u32 = 4u * TX;
const CHUNK: u32 = 8u;
const PITCH: u32 = 9u;
const FILLS: u32 = BC * CHUNK / WG;                    // keys that an invocation brings in
const_assert TY * CHUNK == WG;
const_assert CHUNK % UNROLLED == 0u && TX % UNROLLED == 0u;
//!import attention/common.wgsl
//!import common/dot_add.wgsl
//!slot io
//!import attention/io_vec4.wgsl
//!end
//!slot kv
//!import attention/kv_f32.wgsl
//!end
//!slot rows
//!import attention/rows.wgsl
//!end
// Queries, then probabilities of keys tx + TX·(0, 1, 2, 3); keys, then values.
var<workgroup> q_tile: array<array<array<vec4<f32>, PITCH>, TY>, RT>;
var<workgroup> kv_tile: array<array<array<vec4<f32>, PITCH>, TX>, 4>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    let seq = seqs[group.z];
    let gqa = p.num_q_heads / p.num_kv_heads;
    let rows = seq.q_len * gqa;
    let row0 = (p.row_tiles - 1u - group.x) * BR;                  // the longest rows first
    if row0 >= rows { return; }
    let tx = id % TX;
    let ty = id / TX;
    let head_dim4 = (p.head_dim + 3u) / 4u;
    let value_dim4 = (p.value_dim + 3u) / 4u;
    let k_head = seq.slot * p.k_slot + group.y * p.k_head;
    let v_head = seq.slot * p.v_slot + group.y * p.v_head;
    // What this invocation brings into workgroup memory: element `fill` of rows (or keys) filled + TY·i.
    let filled = id / CHUNK;
    let fill = id % CHUNK;
    var q_base: array<u32, RT>;
    var out_row: array<u32, RT>;
    var lo: array<u32, RT>;
    var hi: array<u32, RT>;
    var m: array<f32, RT>;
    var l: array<f32, RT>;                                         // this invocation's part of the sum
    var acc: array<vec4<f32>, RT * VALUE_CHUNKS>;
    for (var i = 0u; i < RT; i++) { //!unroll
        let row = min(row0 + ty + TY * i, rows - 1u);
        let token = row / gqa;
        let head = group.y * gqa + row % gqa;
        let keys = visible(seq, token);
        out_row[i] = (seq.q_base + token) * p.num_q_heads + head;
        let other = min(row0 + filled + TY * i, rows - 1u);
        q_base[i] = ((seq.q_base + other / gqa) * p.num_q_heads + group.y * gqa + other % gqa) * p.head_dim;
        lo[i] = keys.lo;
        hi[i] = keys.hi;
        m[i] = M0;
        l[i] = 0.0;
        if p.has_sinks != 0u {
            m[i] = sinks[head] * LOG2E;
            l[i] = select(0.0, 1.0, tx == 0u);
        }
        for (var c = 0u; c < VALUE_CHUNKS; c++) { //!unroll
            acc[i * VALUE_CHUNKS + c] = vec4<f32>(0.0);
        } //!unroll
    } //!unroll
    let first_row = visible(seq, row0 / gqa);
    let last_row = visible(seq, min(row0 + BR - 1u, rows - 1u) / gqa);
    let last = last_row.hi;                                        // keys that any row of the tile sees: first..last
    for (var c0 = first_row.lo; c0 < last; c0 += BC) {
        var s: array<f32, RT * 4u>;
        for (var x = 0u; x < RT * 4u; x++) { //!unroll
            s[x] = 0.0;
        } //!unroll
        for (var d0 = 0u; d0 < head_dim4; d0 += CHUNK) {
            let d = d0 + fill;
            var q_in: array<vec4<f32>, RT>;                        // all loads are under way before one is waited for
            var k_in: array<vec4<f32>, FILLS>;
            for (var i = 0u; i < RT; i++) { //!unroll
                q_in[i] = vec4<f32>(0.0);
                if d < head_dim4 { q_in[i] = load_q4(q_base[i], d); }
            } //!unroll
            for (var i = 0u; i < FILLS; i++) { //!unroll
                let key = c0 + filled + TY * i;
                k_in[i] = vec4<f32>(0.0);
                if key < last && d < head_dim4 { k_in[i] = load_k4(k_head + key * p.k_token, d); }
            } //!unroll
            workgroupBarrier();
            for (var i = 0u; i < RT; i++) { //!unroll
                q_tile[i][filled][fill] = q_in[i];
            } //!unroll
            for (var i = 0u; i < FILLS; i++) { //!unroll
                kv_tile[filled / TX + TY / TX * i][filled % TX][fill] = k_in[i];
            } //!unroll
            workgroupBarrier();
            for (var first = 0u; first < CHUNK; first += UNROLLED) {
                for (var u = 0u; u < UNROLLED; u++) { //!unroll
                    let d = first + u;
                    var k4: array<vec4<f32>, 4>;
                    for (var j = 0u; j < 4u; j++) { //!unroll
                        k4[j] = kv_tile[j][tx][d];
                    } //!unroll
                    for (var i = 0u; i < RT; i++) { //!unroll
                        let q4 = q_tile[i][ty][d];
                        for (var j = 0u; j < 4u; j++) { //!unroll
                            s[i * 4u + j] = dot_add(q4, k4[j], s[i * 4u + j]);
                        } //!unroll
                    } //!unroll
                } //!unroll
            }
        }
        let partly_visible = c0 < last_row.lo || c0 + BC > first_row.hi;
        var m_tile = vec4<f32>(M0);
        for (var i = 0u; i < RT; i++) { //!unroll
            for (var j = 0u; j < 4u; j++) { //!unroll
                let key = c0 + tx + TX * j;
                s[i * 4u + j] = score2(s[i * 4u + j]);
                if partly_visible {
                    s[i * 4u + j] = select(M0, s[i * 4u + j], key >= lo[i] && key < hi[i]);
                }
                m_tile[i] = max(m_tile[i], s[i * 4u + j]);
            } //!unroll
        } //!unroll
        m_tile = row_max(m_tile, id);                              // q_tile and kv_tile are free after it
        for (var i = 0u; i < RT; i++) { //!unroll
            let m_new = max(m[i], m_tile[i]);
            var p4 = vec4<f32>(0.0);
            for (var j = 0u; j < 4u; j++) { //!unroll
                p4[j] = select(0.0, exp2(s[i * 4u + j] - m_new), s[i * 4u + j] > 0.5 * M0);
            } //!unroll
            q_tile[i][ty][tx] = p4;
            let alpha = rescale(m[i], m_new);
            l[i] = l[i] * alpha + dot(p4, vec4<f32>(1.0));
            m[i] = m_new;
            for (var c = 0u; c < VALUE_CHUNKS; c++) { //!unroll
                acc[i * VALUE_CHUNKS + c] *= alpha;
            } //!unroll
        } //!unroll
        for (var c = 0u; c < VALUE_CHUNKS; c++) { //!unroll
            var v_in: array<vec4<f32>, FILLS>;
            for (var i = 0u; i < FILLS; i++) { //!unroll
                let key = c0 + filled + TY * i;
                v_in[i] = vec4<f32>(0.0);
                if key < last && c * CHUNK + fill < value_dim4 {
                    v_in[i] = load_v4(v_head + key * p.v_token, c * CHUNK + fill);
                }
            } //!unroll
            for (var i = 0u; i < FILLS; i++) { //!unroll
                kv_tile[filled / TX + TY / TX * i][filled % TX][fill] = v_in[i];
            } //!unroll
            workgroupBarrier();
            for (var first = 0u; first < min(TX, last - c0); first += UNROLLED) { // behind the last probabilities are 0
                for (var u = 0u; u < UNROLLED; u++) { //!unroll
                    let x = first + u;
                    var v4: array<vec4<f32>, 4>;
                    for (var j = 0u; j < 4u; j++) { //!unroll
                        v4[j] = kv_tile[j][x][tx];
                    } //!unroll
                    for (var i = 0u; i < RT; i++) { //!unroll
                        let p4 = q_tile[i][ty][x];
                        for (var j = 0u; j < 4u; j++) { //!unroll
                            acc[i * VALUE_CHUNKS + c] = fma(vec4<f32>(p4[j]), v4[j], acc[i * VALUE_CHUNKS + c]);
                        } //!unroll
                    } //!unroll
                } //!unroll
            }
            workgroupBarrier();
        } //!unroll
    }
    var sums = vec4<f32>(0.0);
    for (var i = 0u; i < RT; i++) { //!unroll
        sums[i] = l[i];
    } //!unroll
    sums = row_sum(sums, id);
    for (var i = 0u; i < RT; i++) { //!unroll
        if row0 + ty + TY * i < rows {
            let scale = select(0.0, 1.0 / max(sums[i], 1.0e-37), sums[i] > 0.0);
            for (var c = 0u; c < VALUE_CHUNKS; c++) { //!unroll
                if c * CHUNK + tx < value_dim4 {
                    store_o4(out_row[i] * p.value_dim, c * CHUNK + tx, acc[i * VALUE_CHUNKS + c] * scale);
                }
            } //!unroll
            if tx == 0u { lse[out_row[i]] = log_sum(m[i], sums[i]); }
        }
    } //!unroll
}

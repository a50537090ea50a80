// Linear attention whose state decays, head by head                        (lightning attention, arXiv:2401.04658)
//   S_t = exp(-slope) S_{t-1} + k_t ⊗ v_t        [D, D], S before the first position of a sequence is 0
//   o_t = q_t S_t
// of rows [q | k | v] of each head. A workgroup takes 4·COLS columns of S of one head of one sequence, whose tokens it goes through
// in order: invocation (lane, column) holds rows 4·(lane + LANES·i) .. + 3 of four columns in registers, and its part of q S. The
// parts of TB tokens are added up together. The state comes from the cache and goes back to it: only rows of S cost memory.
const WG: u32 = 128u;
const COLS: u32 = 8u;
const LANES: u32 = WG / COLS;
const ROWS4: u32 = 2u; //!spec
const TB: u32 = 4u;
struct Params {
    num_tokens: u32, num_heads: u32, head_dim: u32, slot: u32,    // slot: elements from one slot of the states to the next
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> slopes: array<f32>;         // [H]
@group(0) @binding(3) var<storage, read> seqs: array<Seq>;           // [S]
//!import common/batch.wgsl
//!slot io
//!import attention/linear_io_vec4.wgsl
//!end
var<workgroup> parts: array<array<vec4<f32>, WG>, TB>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    let seq = seqs[group.z];
    let head = group.y;
    let lane = id / COLS;
    let column = 4u * (group.x * COLS + id % COLS);
    let decay = exp(-slopes[head]);
    let state = seq.slot * p.slot + head * p.head_dim * p.head_dim;
    let is_first = seq.kv_len == seq.q_len;
    var s: array<vec4<f32>, ROWS4 * 4u>;
    for (var i = 0u; i < ROWS4; i++) { //!unroll
        for (var j = 0u; j < 4u; j++) { //!unroll
            let row = 4u * (lane + LANES * i) + j;
            s[4u * i + j] = vec4<f32>(0.0);
            if !is_first && row < p.head_dim && column < p.head_dim {
                s[4u * i + j] = load_state(state + row * p.head_dim, column);
            }
        } //!unroll
    } //!unroll
    for (var t0 = 0u; t0 < seq.q_len; t0 += TB) {
        for (var u = 0u; u < min(TB, seq.q_len - t0); u++) {
            let base = ((seq.q_base + t0 + u) * p.num_heads + head) * 3u * p.head_dim;
            var v = vec4<f32>(0.0);
            if column < p.head_dim { v = load(base + 2u * p.head_dim, column); }
            var o = vec4<f32>(0.0);
            for (var i = 0u; i < ROWS4; i++) { //!unroll
                let row = 4u * (lane + LANES * i);
                var q4 = vec4<f32>(0.0);
                var k4 = vec4<f32>(0.0);
                if row < p.head_dim {
                    q4 = load(base, row);
                    k4 = load(base + p.head_dim, row);
                }
                for (var j = 0u; j < 4u; j++) { //!unroll
                    s[4u * i + j] = fma(vec4<f32>(k4[j]), v, s[4u * i + j] * decay);
                    o = fma(vec4<f32>(q4[j]), s[4u * i + j], o);
                } //!unroll
            } //!unroll
            parts[u][id] = o;
        }
        workgroupBarrier();
        let u = id / COLS;
        if u < min(TB, seq.q_len - t0) && column < p.head_dim {
            var sum = vec4<f32>(0.0);
            for (var l = 0u; l < LANES; l++) { sum += parts[u][l * COLS + id % COLS]; }
            store(((seq.q_base + t0 + u) * p.num_heads + head) * p.head_dim, column, sum);
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < ROWS4; i++) { //!unroll
        for (var j = 0u; j < 4u; j++) { //!unroll
            let row = 4u * (lane + LANES * i) + j;
            if row < p.head_dim && column < p.head_dim {
                store_state(state + row * p.head_dim, column, s[4u * i + j]);
            }
        } //!unroll
    } //!unroll
}

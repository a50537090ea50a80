// One row of [q heads | k heads | v heads] per token: q and k normalised (NORM 1: each head by itself; 2: the whole
// projection; 3: each head by itself, less its mean, with weights of its own; 4: as 1, but behind the rotation) and rotated,
// with CLIPS bounded in front of the rotation, v too; q written to its own tensor, k and v appended to the cache at
// slot · slot_stride + head · head_stride + position · token_stride. Workgroup (head, token); four channels per
// invocation and step. The position is the sequence's: kv_len - q_len + row.
const WG: u32 = 32u; //!spec
const STYLE: u32 = 1u; //!spec
const NORM: u32 = 0u; //!spec
const CLIPS: bool = false; //!spec
struct Params {
    num_tokens: u32, num_seqs: u32, num_q_heads: u32, num_kv_heads: u32,
    head_dim: u32, num_pairs: u32, max_positions: u32, switch_len: u32,
    eps: f32, one_token_each: u32, grid_y: u32,
    k_slot: u32, k_head: u32, k_token: u32,
    v_slot: u32, v_head: u32, v_token: u32,
    clip: f32,
}
struct Row { base: u32, position: u32, block: u32, w_base: u32, is_q: bool, scale: f32, mean: f32 }
//!import common/batch.wgsl
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> seqs: array<Seq>;            // [S]
//!import common/find_seq.wgsl
//!import common/reduce.wgsl
//!import kv_cache/io.wgsl
//!import kv_cache/store_f32.wgsl
//!import rope/angle_table.wgsl
//!import rope/quad.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let t = group.z * p.grid_y + group.y;
    if t >= p.num_tokens { return; }
    let head = group.x;
    let is_q = head < p.num_q_heads;
    let is_v = head >= p.num_q_heads + p.num_kv_heads;
    let token_base = t * (p.num_q_heads + 2u * p.num_kv_heads) * p.head_dim;
    let base = token_base + head * p.head_dim;
    let seq = seqs[find_seq(t)];
    let position = seq.kv_len - seq.q_len + (t - seq.q_base);
    let block = select(0u, 1u, seq.kv_len > p.switch_len);

    var scale = 1.0;
    var mean = 0.0;
    var w_base = 0u;
    if NORM == 4u && !is_v {
        let plain = Row(base, position, block, 0u, is_q, 1.0, 0.0);
        var sum_sq = 0.0;
        for (var c = 4u * lane.id; c < p.head_dim; c += 4u * WG) {
            let v = quad(plain, c);
            sum_sq += dot(v, v);
        }
        scale = inverseSqrt(workgroup_sum(sum_sq, lane) / f32(p.head_dim) + p.eps);
    } else if NORM != 0u && !is_v {
        var first = base;
        var len = p.head_dim;
        if NORM >= 2u { w_base = select(head - p.num_q_heads, head, is_q) * p.head_dim; }
        if NORM == 2u {
            first = select(token_base + p.num_q_heads * p.head_dim, token_base, is_q);
            len = select(p.num_kv_heads, p.num_q_heads, is_q) * p.head_dim;
        }
        if NORM == 3u {
            var sum = 0.0;
            for (var c = 4u * lane.id; c < len; c += 4u * WG) { sum += total(first + c, len - c); }
            mean = workgroup_sum(sum, lane) / f32(len);
        }
        var sum_sq = 0.0;
        for (var c = 4u * lane.id; c < len; c += 4u * WG) { sum_sq += squares(first + c, len - c, mean); }
        scale = inverseSqrt(workgroup_sum(sum_sq, lane) / f32(len) + p.eps);
    }

    let row = Row(base, position, block, w_base, is_q, scale, mean);
    for (var c = 4u * lane.id; c < p.head_dim; c += 4u * WG) {
        let left = p.head_dim - c;
        var x = vec4<f32>(0.0);
        if is_v {
            x = raw(base + c);
            if CLIPS { x = clamp(x, vec4<f32>(-p.clip), vec4<f32>(p.clip)); }
        } else {
            x = quad(row, c);
            if NORM == 4u { x *= scale * weights(row, c); }
        }
        if is_q {
            put((t * p.num_q_heads + head) * p.head_dim + c, x, left);
        } else if is_v {
            let kv_head = head - p.num_q_heads - p.num_kv_heads;
            store_v(seq.slot * p.v_slot + kv_head * p.v_head + position * p.v_token + c, x, left);
        } else {
            let kv_head = head - p.num_q_heads;
            store_k(seq.slot * p.k_slot + kv_head * p.k_head + position * p.k_token + c, x, left);
        }
    }
}

// Queries and keys of multi-head latent attention in its absorbed form                    (DeepSeek-V2, arXiv:2405.04434)
//   q[t, h] = [absorbed[t, h] | rotated(q_rope[t, h])]
//   k[slot, position] = [latent[t] / sqrt(mean(latent[t]^2) + eps) * norm | rotated(key[t])]
// of rows [latent | key] of L + R channels. All heads read this one key, whose first L channels are the value too.
// Workgroup (head, token); the one behind the heads appends the key. Four channels per invocation and step. The position is the
// sequence's: kv_len - q_len + row.
const WG: u32 = 64u; //!spec
const STYLE: u32 = 1u; //!spec
struct Params {
    num_tokens: u32, num_seqs: u32, num_q_heads: u32, latent_dim: u32,
    head_dim: u32, num_pairs: u32, max_positions: u32, switch_len: u32,   // head_dim: the rotated channels R
    eps: f32, one_token_each: u32, grid_y: u32,
    k_slot: u32, k_token: u32,
}
struct Row { base: u32, position: u32, block: u32, is_q: bool }
//!import common/batch.wgsl
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> seqs: array<Seq>;            // [S]
//!import common/find_seq.wgsl
//!import common/reduce.wgsl
//!import kv_cache/latent_io.wgsl
//!import kv_cache/key_f32.wgsl
//!import rope/angle_table.wgsl
//!import rope/quad.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let t = group.z * p.grid_y + group.y;
    if t >= p.num_tokens { return; }
    let head = group.x;
    let width = p.latent_dim + p.head_dim;
    let seq = seqs[find_seq(t)];
    let position = seq.kv_len - seq.q_len + (t - seq.q_base);
    let block = select(0u, 1u, seq.kv_len > p.switch_len);

    if head < p.num_q_heads {
        let query = t * p.num_q_heads + head;
        for (var c = 4u * lane.id; c < p.latent_dim; c += 4u * WG) {
            put(query * width + c, absorbed4(query * p.latent_dim + c), p.latent_dim - c);
        }
        let row = Row(query * p.head_dim, position, block, true);
        for (var c = 4u * lane.id; c < p.head_dim; c += 4u * WG) {
            put(query * width + p.latent_dim + c, quad(row, c), p.head_dim - c);
        }
        return;
    }
    let base = t * width;
    let to = seq.slot * p.k_slot + position * p.k_token;
    var sum_sq = 0.0;
    for (var c = 4u * lane.id; c < p.latent_dim; c += 4u * WG) { sum_sq += squares(base + c, p.latent_dim - c); }
    let scale = inverseSqrt(workgroup_sum(sum_sq, lane) / f32(p.latent_dim) + p.eps);
    for (var c = 4u * lane.id; c < p.latent_dim; c += 4u * WG) {
        store_k(to + c, latent(base + c) * scale * weights(c), p.latent_dim - c);
    }
    let row = Row(base + p.latent_dim, position, block, false);
    for (var c = 4u * lane.id; c < p.head_dim; c += 4u * WG) {
        store_k(to + p.latent_dim + c, quad(row, c), p.head_dim - c);
    }
}

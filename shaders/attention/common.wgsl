// What the attention kernels share: parameters, sequences, which keys a row sees, scores in log2 units.
const SOFTCAP: bool = false; //!spec
const M0: f32 = -1.0e30;                      // the maximum of no scores: finite, so that differences exist
const LOG2E: f32 = 1.4426950408889634;
const LN2: f32 = 0.6931471805599453;
struct Params {
    num_q_heads: u32, num_kv_heads: u32, head_dim: u32, value_dim: u32,
    k_slot: u32, k_head: u32, k_token: u32, v_slot: u32,      // strides in elements
    v_head: u32, v_token: u32, num_tokens: u32, row_tiles: u32,
    causal: u32, window: u32, has_sinks: u32, splits: u32,    // window 0: none
    row_blocks: u32, scale: f32, softcap: f32, unused: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(4) var<storage, read> seqs: array<Seq>;           // [S]
@group(0) @binding(5) var<storage, read> sinks: array<f32>;          // [Hq]
@group(0) @binding(7) var<storage, read_write> lse: array<f32>;      // [T, Hq]; decode: [splits, T, Hq]
//!import common/batch.wgsl

struct Keys { lo: u32, hi: u32 }

// Keys that a row sees: lo <= j < hi. The row's position is negative if there are more rows than keys.
fn visible(seq: Seq, token: u32) -> Keys {
    let position = i32(seq.kv_len + token) - i32(seq.q_len);
    var keys = Keys(0u, seq.kv_len);
    if p.causal != 0u { keys.hi = u32(clamp(position + 1, 0, i32(seq.kv_len))); }
    if p.window != 0u { keys.lo = u32(max(position + 1 - i32(p.window), 0)); }
    return keys;
}

// A product q·k to a score times log2(e). Scores are capped after scaling.
fn score2(product: f32) -> f32 {
    if SOFTCAP {
        return p.softcap * tanh(clamp(product * p.scale / p.softcap, -10.0, 10.0)) * LOG2E;
    }
    return product * p.scale * LOG2E;
}

// Factor that moves a sum from the reference `before` to the reference `now >= before`.
fn rescale(before: f32, now: f32) -> f32 { return exp2(max(before - now, -126.0)); }

fn log_sum(m: f32, l: f32) -> f32 { return select(M0, (m + log2(max(l, 1.0e-37))) * LN2, l > 0.0); }

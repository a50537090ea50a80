// scores[e, t] = score(logits[t, e]): of each expert those of all tokens, for experts that choose tokens. NaN stays NaN; a softmax
// is over the experts whose logits are numbers. One token per invocation.
const WG: u32 = 64u; //!spec
const SCORE: u32 = 0u; //!spec
struct Params { num_tokens: u32, num_experts: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;              // [T, E]
@group(0) @binding(2) var<storage, read_write> scores: array<f32>;        // [E, T]
//!import common/activation.wgsl
//!import moe/score.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let token = (group.y * p.grid_x + group.x) * WG + lane;
    if token >= p.num_tokens { return; }
    let base = token * p.num_experts;
    var top = -3.4028234e38;
    var sum = 0.0;
    if SCORE == 0u {
        for (var e = 0u; e < p.num_experts; e++) {
            let l = logits[base + e];
            if !is_nan(l) && l > top { top = l; }
        }
        for (var e = 0u; e < p.num_experts; e++) {
            let l = logits[base + e];
            if !is_nan(l) { sum += exp_below(l, top); }
        }
    }
    for (var e = 0u; e < p.num_experts; e++) {
        let l = logits[base + e];
        var s = l;
        if !is_nan(l) {
            if SCORE == 0u { s = exp_below(l, top) / select(1.0, sum, sum > 0.0); } else { s = score(l); }
        }
        scores[e * p.num_tokens + token] = s;
    }
}

// Which K of E experts a token goes to, and with which weights:
//   key = score(logit) + bias          of the groups that are kept; NaN logits have no key
//   the K best keys, the lower index first among equals
//   weight = score, or its softmax or sigmoid among the chosen; 0 of the last experts where they weigh nothing; normalised;
//            times scale and the expert's factor
// One workgroup for a token. An invocation owns every WG-th expert. Weights are few: the first invocation finishes them in order.
const WG: u32 = 64u; //!spec
// Room for this many experts.
const EXPERTS: u32 = 64u; //!spec
const SCORE: u32 = 0u; //!spec
const HAS_BIAS: bool = false; //!spec
const BIAS_IN_WEIGHT: bool = false; //!spec
// 0 any experts, 1 those of groups by their best key, 2 by the sum of their two best, 3 some of each group
const GROUPS: u32 = 0u; //!spec
const FILL_ZERO: bool = false; //!spec
// 0 the score, 1 softmax of the chosen, 2 sigmoid
const WEIGHT: u32 = 0u; //!spec
// 0 none, 1 by the sum + eps, 2 by at least eps
const NORMALISE: u32 = 0u; //!spec
const SPARSE_MIXER: bool = false; //!spec
const HAS_WEIGHTLESS: bool = false; //!spec
const HAS_EXPERT_SCALE: bool = false; //!spec
// Whether routes say what a table has in the place of the expert.
const HAS_TABLE: bool = false; //!spec
const MAX_GROUPS: u32 = 64u;
const MAX_K: u32 = 64u;
struct Params {
    num_tokens: u32,
    num_experts: u32,
    num_slots: u32,     // K
    num_groups: u32,
    keep_groups: u32,
    grid_x: u32,
    eps: f32,           // of the normalisation
    mixer_eps: f32,
    scale: f32,
    first_weightless: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;              // [T, E]
@group(0) @binding(2) var<storage, read> bias: array<f32>;                // [E]
@group(0) @binding(3) var<storage, read> expert_scale: array<f32>;        // [E]
@group(0) @binding(4) var<storage, read> table: array<u32>;               // [E]
@group(0) @binding(5) var<storage, read_write> routes: array<vec2<u32>>;  // [T, K]: expert, bits of its weight
//!import common/reduce_key.wgsl
//!import common/activation.wgsl
//!import moe/score.wgsl
var<workgroup> keys: array<u32, EXPERTS>;
var<workgroup> scores: array<f32, EXPERTS>;
var<workgroup> group_keys: array<u32, MAX_GROUPS>;
var<workgroup> chosen: array<u32, MAX_K>;

// The better of two keys of a group in x, the other one in y.
fn best_two(group: u32, size: u32) -> vec2<u32> {
    var two = vec2<u32>(0u);
    for (var i = 0u; i < size; i++) {
        let key = keys[group * size + i];
        if key > two.x { two = vec2<u32>(key, two.x); } else { two.y = max(two.y, key); }
    }
    return two;
}

// The share of the expert `top` in the softmax of the logits that are near enough to its own; one of them is left out.
fn mixer_weight(top: u32, left_out: u32) -> f32 {
    let m = scores[top];
    var sum = 0.0;
    for (var e = 0u; e < p.num_experts; e++) {
        let l = scores[e];
        let below = m - l;
        let bound = max(abs(l), m);
        let far = below > 2.0 * p.mixer_eps * bound && !(below == 0.0 && bound == 0.0);
        if e != left_out && !is_nan(l) && !far { sum += exp_below(l, m); }
    }
    return select(0.0, 1.0 / sum, sum > 0.0);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let token = group.y * p.grid_x + group.x;
    if token >= p.num_tokens { return; }
    let base = token * p.num_experts;
    var top = Best(0u, NONE);
    if SCORE == 0u {
        for (var e = lane.id; e < p.num_experts; e += WG) {
            let own = Best(order_key(logits[base + e]), e);
            if own.key > 0u && better(own, top) { top = own; }
        }
        top = workgroup_best(top, lane);
        for (var e = lane.id; e < p.num_experts; e += WG) {
            let l = logits[base + e];
            scores[e] = select(exp_below(l, key_value(top.key)), 0.0, is_nan(l));
        }
        workgroupBarrier();
        var sum = 0.0;
        for (var e = 0u; e < p.num_experts; e++) { sum += scores[e]; }
        workgroupBarrier();
        for (var e = lane.id; e < p.num_experts; e += WG) { scores[e] = scores[e] / select(1.0, sum, sum > 0.0); }
    }
    for (var e = lane.id; e < p.num_experts; e += WG) {
        let l = logits[base + e];
        if SCORE > 0u { scores[e] = score(l); }
        var key_of = scores[e];
        if HAS_BIAS { key_of += bias[e]; }
        keys[e] = select(order_key(key_of), 0u, is_nan(l));
        if BIAS_IN_WEIGHT { scores[e] = key_of; }
    }
    workgroupBarrier();
    if GROUPS == 1u || GROUPS == 2u {
        let size = p.num_experts / p.num_groups;
        for (var g = lane.id; g < p.num_groups; g += WG) {
            let two = best_two(g, size);
            group_keys[g] = two.x;
            if GROUPS == 2u { group_keys[g] = order_key(key_value(two.x) + key_value(two.y)); }
        }
        workgroupBarrier();
        for (var e = lane.id; e < p.num_experts; e += WG) {
            let own = Best(group_keys[e / size], e / size);
            var rank = 0u;
            for (var g = 0u; g < p.num_groups; g++) {
                if better(Best(group_keys[g], g), own) { rank++; }
            }
            let filled = select(0u, 0x80000000u, FILL_ZERO && keys[e] > 0u);     // the key of zero
            if rank >= p.keep_groups { keys[e] = filled; }
        }
        workgroupBarrier();
    }
    for (var j = 0u; j < p.num_slots; j++) {
        var first = 0u;
        var end = p.num_experts;
        if GROUPS == 3u {
            let size = p.num_experts / p.num_groups;
            first = j / (p.num_slots / p.num_groups) * size;
            end = first + size;
        }
        var own = Best(0u, NONE);
        for (var e = lane.id; e < end; e += WG) {
            let other = Best(keys[e], e);
            if e >= first && other.key > 0u && better(other, own) { own = other; }
        }
        let found = workgroup_best(own, lane);
        if found.index != NONE && found.index % WG == lane.id { keys[found.index] = 0u; }    // its owner's alone
        if lane.id == 0u { chosen[j] = found.index; }
    }
    workgroupBarrier();
    if lane.id > 0u { return; }
    let at = token * p.num_slots;
    var largest = Best(0u, NONE);
    for (var j = 0u; j < p.num_slots; j++) {
        if chosen[j] != NONE {
            let own = Best(order_key(scores[chosen[j]]), j);
            if better(own, largest) { largest = own; }
        }
    }
    var sum = 0.0;
    for (var j = 0u; j < p.num_slots; j++) {
        let e = chosen[j];
        var w = 0.0;
        if e != NONE {
            w = scores[e];
            if SPARSE_MIXER { w = mixer_weight(e, select(NONE, chosen[0], j == 1u)); }
            if WEIGHT == 1u { w = exp_below(w, key_value(largest.key)); }
            if WEIGHT == 2u { w = act_sigmoid(w); }
        }
        if HAS_WEIGHTLESS && WEIGHT != 1u && e >= p.first_weightless { w = 0.0; }
        routes[at + j] = vec2<u32>(e, bitcast<u32>(w));
        sum += w;
    }
    var divisor = 1.0;
    if WEIGHT == 1u { divisor = sum; }
    if NORMALISE == 1u { divisor = sum + p.eps; }
    if NORMALISE == 2u { divisor = max(sum, p.eps); }
    for (var j = 0u; j < p.num_slots; j++) {
        let e = chosen[j];
        var w = 0.0;
        if e != NONE && divisor != 0.0 {
            w = bitcast<f32>(routes[at + j].y) / divisor * p.scale;
            if HAS_WEIGHTLESS && e >= p.first_weightless { w = 0.0; }
            if HAS_EXPERT_SCALE { w *= expert_scale[e]; }
        }
        var name = e;
        if HAS_TABLE && e != NONE { name = table[e]; }
        routes[at + j] = vec2<u32>(name, bitcast<u32>(w));
    }
}

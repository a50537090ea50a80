// Which C of T tokens each expert takes: those of its largest scores, the earlier token first among equals, NaN never.
//   routes[t, e] = (e, scale · score) where expert e takes token t, else (none, 0)
// One workgroup per expert. The C-th largest key is found bit by bit, then how far among its equals tokens are taken.
const WG: u32 = 64u; //!spec
struct Params { num_tokens: u32, num_experts: u32, capacity: u32, grid_x: u32, scale: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> scores: array<f32>;              // [E, T]
@group(0) @binding(2) var<storage, read_write> routes: array<vec2<u32>>;  // [T, E]: expert, bits of its weight
//!import common/order_key.wgsl
//!import common/reduce.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let expert = group.y * p.grid_x + group.x;
    if expert >= p.num_experts { return; }
    let base = expert * p.num_tokens;
    let capacity = f32(p.capacity);                       // counts are below 2^24
    var least = 0u;                                       // the largest key that at least C have
    for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
        var own = 0.0;
        for (var t = lane.id; t < p.num_tokens; t += WG) {
            if order_key(scores[base + t]) >= (least | bit) { own += 1.0; }
        }
        if workgroup_sum(own, lane) >= capacity { least |= bit; }
    }
    var above = 0.0;
    for (var t = lane.id; t < p.num_tokens; t += WG) {
        if order_key(scores[base + t]) > least { above += 1.0; }
    }
    let missing = capacity - workgroup_sum(above, lane);
    var end = 0u;                                         // equals before it are not too many
    for (var bit = 0x800000u; bit > 0u; bit >>= 1u) {
        var own = 0.0;
        for (var t = lane.id; t < min(end | bit, p.num_tokens); t += WG) {
            if order_key(scores[base + t]) == least { own += 1.0; }
        }
        if workgroup_sum(own, lane) <= missing { end |= bit; }
    }
    for (var t = lane.id; t < p.num_tokens; t += WG) {
        let s = scores[base + t];
        let key = order_key(s);
        let taken = key > least || (key == least && least > 0u && t < end);
        let weight = bitcast<u32>(s * p.scale);
        routes[t * p.num_experts + expert] = vec2<u32>(select(NONE, expert, taken), select(0u, weight, taken));
    }
}

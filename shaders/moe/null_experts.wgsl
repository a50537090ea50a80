// y[t] = residual[t] + alpha Σ_j weight[t, j] · e_j(x[t])     over the slots of a token whose experts have no weights:
//   constant   e(x) = a_1 x + a_2 v, a = softmax(W_c x), W_c [2, D] and v [D] of the expert       (MoE++, 2410.07348)
//   copy       e(x) = x
// Other experts give nothing here. One workgroup per token; x is multiplied once with the sum of its factors.
const WG: u32 = 256u; //!spec
const HAS_CONSTANT: bool = false; //!spec
const HAS_RESIDUAL: bool = false; //!spec
const MAX_K: u32 = 64u;
struct Params {
    num_tokens: u32,
    num_slots: u32,
    num_channels: u32,
    grid_x: u32,
    first_constant: u32,        // experts: constant ones, those that copy, the end of them
    first_copy: u32,
    end_copy: u32,
    alpha: f32,
}
//!import common/lanes.wgsl
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<V>;                     // [T, D]
@group(0) @binding(2) var<storage, read> routes: array<vec2<u32>>;        // [T, K]: expert, bits of its weight
@group(0) @binding(3) var<storage, read> mix: array<V>;                   // [C, 2, D]
@group(0) @binding(4) var<storage, read> constants: array<V>;             // [C, D]
@group(0) @binding(5) var<storage, read> residual: array<V>;              // [T, D]
@group(0) @binding(6) var<storage, read_write> y: array<V>;               // [T, D]
//!import common/reduce.wgsl
//!import common/activation.wgsl
var<workgroup> of_constant: array<f32, MAX_K>;

fn is_constant(expert: u32) -> bool { return expert >= p.first_constant && expert < p.first_copy; }

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let token = group.y * p.grid_x + group.x;
    if token >= p.num_tokens { return; }
    let width = p.num_channels / VEC;
    let slot0 = token * p.num_slots;
    var of_x = 0.0;
    for (var j = 0u; j < p.num_slots; j++) {
        let route = routes[slot0 + j];
        let weight = bitcast<f32>(route.y);
        if HAS_CONSTANT && is_constant(route.x) {
            let row = 2u * (route.x - p.first_constant) * width;
            var own = 0.0;
            for (var i = lane.id; i < width; i += WG) {
                own += sum_of(x[token * width + i] * (mix[row + i] - mix[row + width + i]));
            }
            let first_ahead = workgroup_sum(own, lane);
            of_x += weight * act_sigmoid(first_ahead);
            if lane.id == 0u { of_constant[j] = weight * act_sigmoid(-first_ahead); }
        }
        if route.x >= p.first_copy && route.x < p.end_copy { of_x += weight; }
    }
    if HAS_CONSTANT { workgroupBarrier(); }
    for (var i = lane.id; i < width; i += WG) {
        var sum = V(0.0);
        if of_x != 0.0 { sum = of_x * x[token * width + i]; }
        if HAS_CONSTANT {
            for (var j = 0u; j < p.num_slots; j++) {
                let expert = routes[slot0 + j].x;
                if is_constant(expert) { sum += of_constant[j] * constants[(expert - p.first_constant) * width + i]; }
            }
        }
        if HAS_RESIDUAL { y[token * width + i] = residual[token * width + i] + p.alpha * sum; }
        else { y[token * width + i] = p.alpha * sum; }
    }
}

// Which experts a workgroup of few rows multiplies with. Along z it takes a slot, one choice of a token:
//   y[s] = epilogue(norm(x[s / x_slots]) · W[e]ᵀ)     e the expert of slot s
// or with WEIGHTED a token, whose slots it adds up in order:
//   y[t] = residual + alpha Σ_j weight[t, j] (x[t, j] · W[e]ᵀ + bias[e])
// Slots without an expert, or with one of another part of W, are left out.
// The importer declares routes [T, num_slots]: expert and bits of its weight.
const WEIGHTED: bool = false; //!spec
var<private> token: u32;       // or slot

// Whether a slot's expert is of this part of W.
fn is_here(slot: u32) -> bool { return routes[slot].x - p.first_expert < p.num_experts; }

// First row of W of a slot's expert.
fn expert_row(slot: u32) -> u32 { return (routes[slot].x - p.first_expert) * p.num_n; }

fn bias_of(column: u32) -> f32 {
    if !WEIGHTED { return vector_at(p.bias_at + routes[token].x * p.num_n + column); }
    var sum = 0.0;
    for (var slot = token * p.num_slots; slot < (token + 1u) * p.num_slots; slot++) {
        let route = routes[slot];
        if is_here(slot) { sum += bitcast<f32>(route.y) * vector_at(p.bias_at + route.x * p.num_n + column); }
    }
    return sum;
}

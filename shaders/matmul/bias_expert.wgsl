// The bias [E, N] of the expert that a workgroup multiplies with.
var<private> bias_expert_at: u32;
fn bias_of(column: u32) -> f32 { return vector_at(p.bias_at + bias_expert_at + column); }

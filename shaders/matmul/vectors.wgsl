// Norm weight [K], norm bias [K] and bias [N]: those that a product has, anywhere in one range.
@group(0) @binding(4) var<storage, read> vectors: array<f32>;
fn vector_at(i: u32) -> f32 { return vectors[i]; }

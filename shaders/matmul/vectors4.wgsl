// The same, read by four.
@group(0) @binding(4) var<storage, read> vectors: array<vec4<f32>>;
fn vector_at(i: u32) -> f32 { return vectors[i / 4u][i % 4u]; }
fn vectors_at(i: u32) -> vec4<f32> { return vectors[i]; }

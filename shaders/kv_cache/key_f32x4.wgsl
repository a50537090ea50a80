// All strides are multiples of four.
@group(0) @binding(7) var<storage, read_write> k: array<vec4<f32>>;
fn store_k(at: u32, x: vec4<f32>, left: u32) { k[at / 4u] = x; }

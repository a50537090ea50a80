// Heads of a multiple of four channels.
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;         // [T, H, D/4]
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;   // [T, H, D/4]
fn input4(row: Row, c: u32) -> vec4<f32> { return x[(row.base + c) / 4u]; }
fn put(at: u32, v: vec4<f32>, left: u32) { y[at / 4u] = v; }

// Queries and results four channels at a time: head dims are multiples of 4.
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;            // [T, Hq, D]
@group(0) @binding(6) var<storage, read_write> o: array<vec4<f32>>;      // [T, Hq, Dv]; decode: [splits, T, Hq, Dv]

fn load_q4(base: u32, d: u32) -> vec4<f32> { return q[base / 4u + d]; }
fn load_o4(base: u32, d: u32) -> vec4<f32> { return o[base / 4u + d]; }
fn store_o4(base: u32, d: u32, x: vec4<f32>) { o[base / 4u + d] = x; }

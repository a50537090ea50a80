// A multiple of four channels.
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;   // [T, C/4]
fn put(t: u32, i: u32, v: vec4<f32>) { y[t * (p.num_channels / 4u) + i] = v; }

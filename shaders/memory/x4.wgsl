// A multiple of four channels.
@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;         // [T, C/4]
fn x4(t: u32, i: u32) -> vec4<f32> { return x[t * (p.num_channels / 4u) + i]; }

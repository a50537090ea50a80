// Decoder of keys and values: f32, head dims and strides multiples of 4. `base` is an element index.
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;

fn load_k4(base: u32, d: u32) -> vec4<f32> { return k[base / 4u + d]; }
fn load_v4(base: u32, d: u32) -> vec4<f32> { return v[base / 4u + d]; }

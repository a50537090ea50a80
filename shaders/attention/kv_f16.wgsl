// Decoder of keys and values: f16, two to a word, head dims and strides multiples of 4.
@group(0) @binding(2) var<storage, read> k: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> v: array<vec2<u32>>;

fn unpack4(x: vec2<u32>) -> vec4<f32> { return vec4<f32>(unpack2x16float(x.x), unpack2x16float(x.y)); }
fn load_k4(base: u32, d: u32) -> vec4<f32> { return unpack4(k[base / 4u + d]); }
fn load_v4(base: u32, d: u32) -> vec4<f32> { return unpack4(v[base / 4u + d]); }

// Four f16 to two words: all strides are multiples of four.
//!import kv_cache/key_f16x4.wgsl
@group(0) @binding(8) var<storage, read_write> v: array<vec2<u32>>;
fn store_v(at: u32, x: vec4<f32>, left: u32) { v[at / 4u] = half4(x); }

// Four f16 to two words: all strides are multiples of four.
@group(0) @binding(7) var<storage, read_write> k: array<vec2<u32>>;
//!import kv_cache/half2.wgsl
fn half4(x: vec4<f32>) -> vec2<u32> { return vec2<u32>(half2(x.xy), half2(x.zw)); }
fn store_k(at: u32, x: vec4<f32>, left: u32) { k[at / 4u] = half4(x); }

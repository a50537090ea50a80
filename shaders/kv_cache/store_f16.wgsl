// Two f16 to a word: head_dim and all strides are even.
//!import kv_cache/key_f16.wgsl
@group(0) @binding(8) var<storage, read_write> v: array<u32>;
fn store_v(at: u32, x: vec4<f32>, left: u32) {
    v[at / 2u] = half2(x.xy);
    if left > 2u { v[at / 2u + 1u] = half2(x.zw); }
}

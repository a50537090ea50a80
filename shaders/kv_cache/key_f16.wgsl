// Two f16 to a word: head_dim and all strides are even.
@group(0) @binding(7) var<storage, read_write> k: array<u32>;
//!import kv_cache/half2.wgsl
fn store_k(at: u32, x: vec4<f32>, left: u32) {
    k[at / 2u] = half2(x.xy);
    if left > 2u { k[at / 2u + 1u] = half2(x.zw); }
}

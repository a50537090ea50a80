// Two f16 to a word: head_dim and all strides are even. Values beyond the range of f16 become its largest.
@group(0) @binding(7) var<storage, read_write> k: array<u32>;
@group(0) @binding(8) var<storage, read_write> v: array<u32>;
fn half2(x: vec2<f32>) -> u32 { return pack2x16float(clamp(x, vec2<f32>(-65504.0), vec2<f32>(65504.0))); }
fn store_k(at: u32, x: vec4<f32>, left: u32) {
    k[at / 2u] = half2(x.xy);
    if left > 2u { k[at / 2u + 1u] = half2(x.zw); }
}
fn store_v(at: u32, x: vec4<f32>, left: u32) {
    v[at / 2u] = half2(x.xy);
    if left > 2u { v[at / 2u + 1u] = half2(x.zw); }
}

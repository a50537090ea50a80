// Four f16 to two words: all strides are multiples of four. Values beyond the range of f16 become its largest.
@group(0) @binding(7) var<storage, read_write> k: array<vec2<u32>>;
@group(0) @binding(8) var<storage, read_write> v: array<vec2<u32>>;
fn half4(x: vec4<f32>) -> vec2<u32> {
    let y = clamp(x, vec4<f32>(-65504.0), vec4<f32>(65504.0));
    return vec2<u32>(pack2x16float(y.xy), pack2x16float(y.zw));
}
fn store_k(at: u32, x: vec4<f32>, left: u32) { k[at / 4u] = half4(x); }
fn store_v(at: u32, x: vec4<f32>, left: u32) { v[at / 4u] = half4(x); }

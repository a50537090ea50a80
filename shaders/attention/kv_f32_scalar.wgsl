// Decoder of keys and values: f32, any head dim and strides. Channels beyond the last one are read as 0.
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read> v: array<f32>;

fn k_at(base: u32, c: u32) -> f32 {
    let e = base + min(c, p.head_dim - 1u);
    return select(0.0, k[e], c < p.head_dim);
}
fn v_at(base: u32, c: u32) -> f32 {
    let e = base + min(c, p.value_dim - 1u);
    return select(0.0, v[e], c < p.value_dim);
}
//!import attention/kv_scalar.wgsl

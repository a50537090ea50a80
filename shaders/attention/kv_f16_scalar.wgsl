// Decoder of keys and values: f16, two to a word, any head dim and strides. Channels beyond the last one are read as 0.
@group(0) @binding(2) var<storage, read> k: array<u32>;
@group(0) @binding(3) var<storage, read> v: array<u32>;

fn k_at(base: u32, c: u32) -> f32 {
    let e = base + min(c, p.head_dim - 1u);
    return select(0.0, unpack2x16float(k[e / 2u])[e % 2u], c < p.head_dim);
}
fn v_at(base: u32, c: u32) -> f32 {
    let e = base + min(c, p.value_dim - 1u);
    return select(0.0, unpack2x16float(v[e / 2u])[e % 2u], c < p.value_dim);
}
//!import attention/kv_scalar.wgsl

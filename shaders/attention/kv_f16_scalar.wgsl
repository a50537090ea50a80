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
fn load_k4(base: u32, d: u32) -> vec4<f32> {
    let c = 4u * d;
    return vec4<f32>(k_at(base, c), k_at(base, c + 1u), k_at(base, c + 2u), k_at(base, c + 3u));
}
fn load_v4(base: u32, d: u32) -> vec4<f32> {
    let c = 4u * d;
    return vec4<f32>(v_at(base, c), v_at(base, c + 1u), v_at(base, c + 2u), v_at(base, c + 3u));
}

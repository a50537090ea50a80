// The functions of vectors4.wgsl with loads of 8 bytes; beside x_int64.wgsl.
@group(0) @binding(4) var<storage, read> vectors: array<vec2<u64>>;
fn vectors_at(i: u32) -> vec4<f32> {
    let v = vectors[i];
    return vec4<f32>(f32x2_of(v.x), f32x2_of(v.y));
}
fn vector_at(i: u32) -> f32 {
    let v = vectors_at(i / 4u);
    return select(select(v.x, v.y, i % 4u == 1u), select(v.z, v.w, i % 4u == 3u), i % 4u >= 2u);
}

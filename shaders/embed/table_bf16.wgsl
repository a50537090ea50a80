@group(0) @binding(2) var<storage, read> w: array<vec2<u32>>;         // [N, K8, 2], four bf16 each
fn load4(row: u32, i: u32) -> vec4<f32> {
    let v = w[row * 2u * p.num_k8 + i];
    return bitcast<vec4<f32>>(vec4<u32>(v.x << 16u, v.x & 0xffff0000u, v.y << 16u, v.y & 0xffff0000u));
}

@group(0) @binding(2) var<storage, read> w: array<vec2<u32>>;         // [N, K8, 2], four f16 each
fn load4(row: u32, i: u32) -> vec4<f32> {
    let v = w[row * 2u * p.num_k8 + i];
    return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y));
}

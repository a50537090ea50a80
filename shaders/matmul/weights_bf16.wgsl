// Weights in bfloat16 (the upper half of an f32), two to a word, rows padded to groups of 8.
@group(0) @binding(2) var<storage, read> w: array<vec4<u32>>;         // [N, K8]
fn load_w8(row: u32, k8: u32) -> Vec8 {
    let v = w[row * p.num_k8 + k8];
    let even = bitcast<vec4<f32>>(v << vec4<u32>(16u));
    let odd = bitcast<vec4<f32>>(v & vec4<u32>(0xffff0000u));
    return Vec8(vec4<f32>(even.x, odd.x, even.y, odd.y), vec4<f32>(even.z, odd.z, even.w, odd.w));
}

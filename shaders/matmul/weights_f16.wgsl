// Weights in f16, two to a word, rows padded to groups of 8. Needs no f16 arithmetic.
@group(0) @binding(2) var<storage, read> w: array<vec4<u32>>;         // [N, K8]
fn load_w8(row: u32, k8: u32) -> Vec8 {
    let v = w[row * p.num_k8 + k8];
    return Vec8(vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y)),
                vec4<f32>(unpack2x16float(v.z), unpack2x16float(v.w)));
}

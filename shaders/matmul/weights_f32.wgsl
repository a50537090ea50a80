// Weights in f32, rows padded to groups of 8.
@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>;         // [N, K8, 2]
fn load_w8(row: u32, k8: u32) -> Vec8 {
    let i = 2u * (row * p.num_k8 + k8);
    return Vec8(w[i], w[i + 1u]);
}

// Activations whose rows are whole groups of 8: K % 8 == 0.
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;         // [M, K8, 2]
fn load_x8(row: u32, k8: u32) -> Vec8 {
    let i = 2u * (row * p.num_k8 + k8);
    return Vec8(x[i], x[i + 1u]);
}

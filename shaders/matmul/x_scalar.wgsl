// Activations with rows of any length: one load per channel, zero beyond K.
@group(0) @binding(1) var<storage, read> x: array<f32>;               // [M, K]
fn load_x1(row_base: u32, k: u32) -> f32 {
    if k < p.num_k { return x[row_base + k]; }
    return 0.0;
}
fn load_x4(row_base: u32, k: u32) -> vec4<f32> {
    return vec4<f32>(load_x1(row_base, k), load_x1(row_base, k + 1u), load_x1(row_base, k + 2u),
                     load_x1(row_base, k + 3u));
}
fn load_x8(row: u32, k8: u32) -> Vec8 {
    let base = row * p.num_k;
    return Vec8(load_x4(base, 8u * k8), load_x4(base, 8u * k8 + 4u));
}

// Weight of a fused RMS normalisation, any K. What is loaded beyond K only has to be finite: it meets zeros of x.
@group(0) @binding(5) var<storage, read> norm_weight: array<f32>;     // [K]
fn norm_weight1(k: u32) -> f32 { return norm_weight[min(k, p.num_k - 1u)]; }
fn norm_weight4(k: u32) -> vec4<f32> {
    return vec4<f32>(norm_weight1(k), norm_weight1(k + 1u), norm_weight1(k + 2u), norm_weight1(k + 3u));
}
fn load_norm_weight8(k8: u32) -> Vec8 { return Vec8(norm_weight4(8u * k8), norm_weight4(8u * k8 + 4u)); }

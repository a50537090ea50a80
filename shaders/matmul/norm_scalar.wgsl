// Weight and bias of a fused normalisation, any K; zero beyond it, so that what becomes of the zeros of x there is
// zero again and meets padding of any value.
@group(0) @binding(4) var<storage, read> norm_weight: array<f32>;     // [K]
@group(0) @binding(5) var<storage, read> norm_bias: array<f32>;       // [K]
fn last_k(k: u32) -> u32 { return min(k, p.num_k - 1u); }
fn load_norm_weight4(k: u32) -> vec4<f32> {
    return inside(k) * vec4<f32>(norm_weight[last_k(k)], norm_weight[last_k(k + 1u)], norm_weight[last_k(k + 2u)],
                                 norm_weight[last_k(k + 3u)]);
}
fn load_norm_bias4(k: u32) -> vec4<f32> {
    return inside(k) * vec4<f32>(norm_bias[last_k(k)], norm_bias[last_k(k + 1u)], norm_bias[last_k(k + 2u)],
                                 norm_bias[last_k(k + 3u)]);
}
fn load_norm_weight8(k8: u32) -> Vec8 {
    return Vec8(load_norm_weight4(8u * k8), load_norm_weight4(8u * k8 + 4u));
}
fn load_norm_bias8(k8: u32) -> Vec8 { return Vec8(load_norm_bias4(8u * k8), load_norm_bias4(8u * k8 + 4u)); }

// Weight and bias of a fused normalisation, K % 8 == 0.
@group(0) @binding(4) var<storage, read> norm_weight: array<vec4<f32>>;   // [K8, 2]
@group(0) @binding(5) var<storage, read> norm_bias: array<vec4<f32>>;     // [K8, 2]
fn load_norm_weight8(k8: u32) -> Vec8 { return Vec8(norm_weight[2u * k8], norm_weight[2u * k8 + 1u]); }
fn load_norm_bias8(k8: u32) -> Vec8 { return Vec8(norm_bias[2u * k8], norm_bias[2u * k8 + 1u]); }

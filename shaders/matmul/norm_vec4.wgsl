// Weight and bias of a fused normalisation, K % 8 == 0.
fn load_vectors8(at: u32, k8: u32) -> Vec8 {
    let i = at / 4u + 2u * k8;
    return Vec8(vectors_at(i), vectors_at(i + 1u));
}
fn load_norm_weight8(k8: u32) -> Vec8 { return load_vectors8(p.norm_weight_at, k8); }
fn load_norm_bias8(k8: u32) -> Vec8 { return load_vectors8(p.norm_bias_at, k8); }

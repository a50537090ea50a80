// Weight and bias of a fused normalisation, any K; zero beyond it, so that what becomes of the zeros of x there is
// zero again and meets padding of any value.
fn load_vectors4(at: u32, k: u32) -> vec4<f32> {
    let last = p.num_k - 1u;
    return inside(k) * vec4<f32>(vector_at(at + min(k, last)), vector_at(at + min(k + 1u, last)),
                                 vector_at(at + min(k + 2u, last)), vector_at(at + min(k + 3u, last)));
}
fn load_vectors8(at: u32, k8: u32) -> Vec8 {
    return Vec8(load_vectors4(at, 8u * k8), load_vectors4(at, 8u * k8 + 4u));
}
fn load_norm_weight8(k8: u32) -> Vec8 { return load_vectors8(p.norm_weight_at, k8); }
fn load_norm_bias8(k8: u32) -> Vec8 { return load_vectors8(p.norm_bias_at, k8); }

// The norm behind the block before:  s = stream + x / sqrt(mean(x²) + eps) · weight.  K % 8 == 0, vectors are read by four.
@group(0) @binding(7) var<storage, read> stream: array<vec4<f32>>;          // [M, K8, 2]
@group(0) @binding(8) var<storage, read_write> sum: array<vec4<f32>>;       // [M, K8, 2]

fn add_stream8(row: u32, k8: u32, x8: Vec8, scale: f32) -> Vec8 {
    let i = 2u * (row * p.num_k8 + k8);
    let at = p.norm_add_weight_at / 4u + 2u * k8;
    return Vec8(stream[i] + x8.lo * scale * vectors_at(at), stream[i + 1u] + x8.hi * scale * vectors_at(at + 1u));
}

fn keep_sum8(row: u32, k8: u32, s: Vec8) {
    let i = 2u * (row * p.num_k8 + k8);
    sum[i] = s.lo;
    sum[i + 1u] = s.hi;
}

// The function of x_vec4.wgsl with half as many loads, each of 8 bytes, where a driver pays for each.
@group(0) @binding(1) var<storage, read> x: array<vec4<u64>>;         // [M, K8]
fn load_x8(row: u32, k8: u32) -> Vec8 {
    let v = x[row * p.num_k8 + k8];
    return Vec8(vec4<f32>(f32x2_of(v.x), f32x2_of(v.y)), vec4<f32>(f32x2_of(v.z), f32x2_of(v.w)));
}
fn f32x2_of(bits: u64) -> vec2<f32> { return vec2<f32>(bitcast<f32>(u32(bits)), bitcast<f32>(u32(bits >> 32u))); }

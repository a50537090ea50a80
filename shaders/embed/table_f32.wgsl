@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>;         // [N, K8, 2]
fn load4(row: u32, i: u32) -> vec4<f32> { return w[row * 2u * p.num_k8 + i]; }

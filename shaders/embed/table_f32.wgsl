@group(0) @binding(2) var<storage, read> table: array<vec4<f32>>;     // [N, k_stride/4]
fn load4(i: u32) -> vec4<f32> { return table[i]; }

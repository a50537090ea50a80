@group(0) @binding(2) var<storage, read> table: array<vec2<u32>>;     // [N, k_stride/4], four bf16 each
fn load4(i: u32) -> vec4<f32> {
    let w = table[i];
    return bitcast<vec4<f32>>(vec4<u32>(w.x << 16u, w.x & 0xffff0000u, w.y << 16u, w.y & 0xffff0000u));
}

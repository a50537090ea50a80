@group(0) @binding(2) var<storage, read> table: array<vec2<u32>>;     // [N, k_stride/4], four f16 each
fn load4(i: u32) -> vec4<f32> {
    let w = table[i];
    return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y));
}

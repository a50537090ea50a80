// Blocks of x that were quantised before (32 signed bytes in channel order; zeros beyond K).
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;         // [M, B, 2]
@group(0) @binding(7) var<storage, read> x_scales: array<vec2<u32>>;  // [M, B]: scale, two sums as i16
fn x_block(row: u32, block: u32) -> XBlock {
    let i = row * num_blocks() + block;
    let a = x[2u * i];
    let b = x[2u * i + 1u];
    let s = x_scales[i];
    let sums = vec2<i32>(bitcast<i32>(s.y << 16u) >> 16u, bitcast<i32>(s.y) >> 16u);
    return XBlock(vec4<u32>(a.x, a.z, b.x, b.z), vec4<u32>(a.y, a.w, b.y, b.w), bitcast<f32>(s.x), sums, 0.0);
}

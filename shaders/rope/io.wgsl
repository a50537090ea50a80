// Channels one by one; io4.wgsl takes four.
@group(0) @binding(1) var<storage, read> x: array<f32>;               // [T, H, D]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;         // [T, H, D]
fn input(row: Row, c: u32) -> f32 { return x[row.base + c]; }
fn put(at: u32, v: vec4<f32>, left: u32) {
    y[at] = v.x;
    if left > 1u { y[at + 1u] = v.y; }
    if left > 2u { y[at + 2u] = v.z; }
    if left > 3u { y[at + 3u] = v.w; }
}

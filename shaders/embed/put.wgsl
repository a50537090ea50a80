// Any number of channels: up to four stores.
@group(0) @binding(4) var<storage, read_write> y: array<f32>;         // [T, C]
fn put(t: u32, i: u32, v: vec4<f32>) {
    let base = t * p.num_channels + 4u * i;
    let left = p.num_channels - 4u * i;
    y[base] = v.x;
    if left > 1u { y[base + 1u] = v.y; }
    if left > 2u { y[base + 2u] = v.z; }
    if left > 3u { y[base + 3u] = v.w; }
}

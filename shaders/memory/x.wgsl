// Any number of channels: up to four loads, zeros behind the last.
@group(0) @binding(4) var<storage, read> x: array<f32>;               // [T, C]
fn x4(t: u32, i: u32) -> vec4<f32> {
    let base = t * p.num_channels + 4u * i;
    let left = p.num_channels - 4u * i;
    var v = vec4<f32>(x[base], 0.0, 0.0, 0.0);
    if left > 1u { v.y = x[base + 1u]; }
    if left > 2u { v.z = x[base + 2u]; }
    if left > 3u { v.w = x[base + 3u]; }
    return v;
}

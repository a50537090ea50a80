// A multiple of four channels.
@group(0) @binding(4) var<storage, read> residual: array<vec4<f32>>;  // [T, C/4]
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;   // [T, C/4]
fn put(t: u32, i: u32, v: vec4<f32>) {
    let at = t * (p.num_channels / 4u) + i;
    var sum = v;
    if HAS_RESIDUAL { sum += residual[at]; }
    if ADDS { sum += y[at]; }
    y[at] = sum;
}

// Any number of channels: up to four loads and stores.
@group(0) @binding(4) var<storage, read> residual: array<f32>;        // [T, C]
@group(0) @binding(5) var<storage, read_write> y: array<f32>;         // [T, C]
fn put(t: u32, i: u32, v: vec4<f32>) {
    for (var c = 4u * i; c < min(4u * i + 4u, p.num_channels); c++) {
        let at = t * p.num_channels + c;
        var sum = v[c % 4u];
        if HAS_RESIDUAL { sum += residual[at]; }
        if ADDS { sum += y[at]; }
        y[at] = sum;
    }
}

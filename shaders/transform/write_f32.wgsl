@group(0) @binding(7) var<storage, read_write> y: array<V>;                   // [T, n]
@group(0) @binding(8) var<storage, read_write> y_scales: array<u32>;          // not written

fn write_row(row: u32, gain: f32, lane: Lane) {
    for (var i = lane.id; i < p.num_channels / VEC; i += WG) { y[row_base + i] = mixed(i) * gain; }
}

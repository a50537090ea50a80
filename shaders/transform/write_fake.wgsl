// The numbers that the integers of write_codes.wgsl stand for, scale · q, for devices without products of packed bytes.
// An invocation writes blocks of 32 channels.
const FAKE: bool = true; //!spec
@group(0) @binding(7) var<storage, read_write> y: array<V>;                   // [T, n]
@group(0) @binding(8) var<storage, read_write> y_scales: array<u32>;          // not written
const INFINITE: u32 = 0x7f800000u;
const BLOCK: u32 = 32u / VEC;

fn write_row(row: u32, gain: f32, lane: Lane) {
    let row_len = p.num_channels / VEC;
    let num_blocks = (p.num_channels + 31u) / 32u;
    var amax = 0.0;
    if p.group_blocks == 0u {
        for (var i = lane.id; i < row_len; i += WG) { amax = max(amax, max_of(abs(mixed(i) * gain))); }
        amax = workgroup_max(amax, lane);
    }
    for (var block = lane.id; block < num_blocks; block += WG) {
        let end = min((block + 1u) * BLOCK, row_len);
        if p.group_blocks > 0u {
            amax = 0.0;
            let first = block / p.group_blocks * p.group_blocks;
            for (var i = first * BLOCK; i < min((first + p.group_blocks) * BLOCK, row_len); i++) {
                amax = max(amax, max_of(abs(mixed(i) * gain)));
            }
        }
        var scale = p.clip * amax / p.qmax;
        if scale < 1.2e-38 { scale = 1.0; }              // zeros, or what devices may flush to them
        // A maximum may pass over NaN: the bits of the largest magnitude do not.
        var top = 0u;
        for (var i = block * BLOCK; i < end; i++) { top = max(top, top_bits(mixed(i) * gain)); }
        if top >= INFINITE { scale = bitcast<f32>(top); }
        for (var i = block * BLOCK; i < end; i++) {
            y[row_base + i] = clamp(round(mixed(i) * gain / scale), V(-p.qmax - 1.0), V(p.qmax)) * scale;
        }
    }
}

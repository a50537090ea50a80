// Symmetric integers of a token or of a group of channels: scale = clip · max|v| / qmax,
// q = clamp(round(v / scale), -qmax - 1, qmax), ties to even; the scale of zeros is 1. An invocation writes blocks of
// 32 channels: their codes in bytes, their scale, the sums of the first and the last 16 codes. B = ceil(n / 32).
// A maximum may pass over NaN, so a block with NaN or an infinity gets that for a scale in the end.
const CODES: bool = true; //!spec
@group(0) @binding(7) var<storage, read_write> y: array<vec4<u32>>;           // [T, B, 2]
@group(0) @binding(8) var<storage, read_write> y_scales: array<vec2<u32>>;    // [T, B]
const ONES: u32 = 0x01010101u;
const MAGNITUDE: u32 = 0x7fffffffu;
const INFINITE: u32 = 0x7f800000u;
// Bits of the largest magnitude of a block, NaN above all.
var<private> top: vec4<u32>;

fn code_word(i: u32, gain: f32, scale: f32) -> u32 {
    let v = quad(i) * gain;
    top = max(top, bitcast<vec4<u32>>(v) & vec4(MAGNITUDE));
    let q = clamp(round(v / scale), vec4(-p.qmax - 1.0), vec4(p.qmax));
    return pack4xI8(vec4<i32>(q));
}

fn sum_of_codes(words: vec4<u32>) -> i32 {
    return dot4I8Packed(words.x, ONES) + dot4I8Packed(words.y, ONES) + dot4I8Packed(words.z, ONES)
        + dot4I8Packed(words.w, ONES);
}

fn write_row(row: u32, gain: f32, lane: Lane) {
    let num_blocks = (p.num_channels + 31u) / 32u;
    var amax = 0.0;
    if p.group_blocks == 0u {
        for (var i = lane.id; i < p.num_channels / VEC; i += WG) { amax = max(amax, max_of(abs(mixed(i) * gain))); }
        amax = workgroup_max(amax, lane);
    }
    for (var block = lane.id; block < num_blocks; block += WG) {
        if p.group_blocks > 0u {
            amax = 0.0;
            let first = block / p.group_blocks * p.group_blocks;
            for (var i = 8u * first; i < 8u * min(first + p.group_blocks, num_blocks); i++) {
                let v = abs(quad(i) * gain);
                amax = max(amax, max(max(v.x, v.y), max(v.z, v.w)));
            }
        }
        var scale = p.clip * amax / p.qmax;
        if scale < 1.2e-38 { scale = 1.0; }              // zeros, or what devices may flush to them
        let i = 8u * block;
        top = vec4(0u);
        let low = vec4(code_word(i, gain, scale), code_word(i + 1u, gain, scale), code_word(i + 2u, gain, scale),
            code_word(i + 3u, gain, scale));
        let high = vec4(code_word(i + 4u, gain, scale), code_word(i + 5u, gain, scale),
            code_word(i + 6u, gain, scale), code_word(i + 7u, gain, scale));
        let to = row * num_blocks + block;
        y[2u * to] = low;
        y[2u * to + 1u] = high;
        let sums = (bitcast<u32>(sum_of_codes(low)) & 0xffffu) | (bitcast<u32>(sum_of_codes(high)) << 16u);
        let most = max(max(top.x, top.y), max(top.z, top.w));
        y_scales[to] = vec2(select(bitcast<u32>(scale), most, most >= INFINITE), sums);
    }
}

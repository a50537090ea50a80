// The functions of words.wgsl with half as many loads, each of 8 bytes, where a driver pays for each.
@group(0) @binding(2) var<storage, read> w: array<vec2<u64>>;         // [N, code_stride()]
fn words_at(i: u32) -> vec4<u32> {
    let v = w[i];
    return vec4<u32>(u32(v.x), u32(v.x >> 32u), u32(v.y), u32(v.y >> 32u));
}
fn word_at(i: u32, j: u32) -> u32 { return u32(w[i][j / 2u] >> (32u * (j % 2u))); }

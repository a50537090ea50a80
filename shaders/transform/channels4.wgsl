// Four channels at a time. Where butterflies run along the channels, their first two steps lie within a vector.
const WITHIN: bool = false; //!spec
fn within(v: V) -> V {
    if !WITHIN { return v; }
    let a = vec4(v.x + v.y, v.x - v.y, v.z + v.w, v.z - v.w);
    return vec4(a.x + a.z, a.y + a.w, a.x - a.z, a.y - a.w);
}
fn quad(i: u32) -> vec4<f32> {
    if i < p.num_channels / 4u { return mixed(i); }
    return vec4<f32>();
}
fn top_bits(v: V) -> u32 {
    let bits = bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu);
    return max(max(bits.x, bits.y), max(bits.z, bits.w));
}

// One channel at a time: what depends on the width beside lanes.wgsl. channels4.wgsl has the same names.
fn within(v: V) -> V { return v; }
fn channel(i: u32) -> f32 {
    if i < p.num_channels { return mixed(i); }
    return 0.0;
}
// Four mixed channels from 4 i on; 0 beyond the row.
fn quad(i: u32) -> vec4<f32> {
    return vec4(channel(4u * i), channel(4u * i + 1u), channel(4u * i + 2u), channel(4u * i + 3u));
}
fn top_bits(v: V) -> u32 { return bitcast<u32>(v) & 0x7fffffffu; }

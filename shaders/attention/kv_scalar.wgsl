// Keys and values by four, channel by channel. The importer declares k_at and v_at.
fn load_k4(base: u32, d: u32) -> vec4<f32> {
    let c = 4u * d;
    return vec4<f32>(k_at(base, c), k_at(base, c + 1u), k_at(base, c + 2u), k_at(base, c + 3u));
}
fn load_v4(base: u32, d: u32) -> vec4<f32> {
    let c = 4u * d;
    return vec4<f32>(v_at(base, c), v_at(base, c + 1u), v_at(base, c + 2u), v_at(base, c + 3u));
}

// The contract of io_vec4.wgsl for any head dim: channels beyond the last one are read as 0 and not written.
@group(0) @binding(1) var<storage, read> q: array<f32>;                  // [T, Hq, D]
@group(0) @binding(6) var<storage, read_write> o: array<f32>;            // [T, Hq, Dv]; decode: [splits, T, Hq, Dv]

fn q_at(base: u32, c: u32) -> f32 { return select(0.0, q[base + min(c, p.head_dim - 1u)], c < p.head_dim); }
fn o_at(base: u32, c: u32) -> f32 { return select(0.0, o[base + min(c, p.value_dim - 1u)], c < p.value_dim); }
fn load_q4(base: u32, d: u32) -> vec4<f32> {
    let c = 4u * d;
    return vec4<f32>(q_at(base, c), q_at(base, c + 1u), q_at(base, c + 2u), q_at(base, c + 3u));
}
fn load_o4(base: u32, d: u32) -> vec4<f32> {
    let c = 4u * d;
    return vec4<f32>(o_at(base, c), o_at(base, c + 1u), o_at(base, c + 2u), o_at(base, c + 3u));
}
fn store_o4(base: u32, d: u32, x: vec4<f32>) {
    let c = 4u * d;
    o[base + c] = x.x;
    if c + 1u < p.value_dim { o[base + c + 1u] = x.y; }
    if c + 2u < p.value_dim { o[base + c + 2u] = x.z; }
    if c + 3u < p.value_dim { o[base + c + 3u] = x.w; }
}

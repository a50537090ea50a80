// Heads of a multiple of four channels.
@group(0) @binding(1) var<storage, read> qkv: array<vec4<f32>>;       // [T, (Hq + 2 Hkv) D/4]
@group(0) @binding(4) var<storage, read> norm_q: array<vec4<f32>>;    // [D/4] or [Hq D/4]; not read without NORM
@group(0) @binding(5) var<storage, read> norm_k: array<vec4<f32>>;    // [D/4] or [Hkv D/4]; not read without NORM
@group(0) @binding(6) var<storage, read_write> q: array<vec4<f32>>;   // [T, Hq D/4]

fn input4(row: Row, c: u32) -> vec4<f32> {
    var v = qkv[(row.base + c) / 4u];
    if NORM > 0u && NORM < 4u {
        if NORM == 3u { v -= row.mean; }
        v = v * row.scale * weights(row, c);
    }
    if CLIPS { return clamp(v, vec4<f32>(-p.clip), vec4<f32>(p.clip)); }
    return v;
}
fn weights(row: Row, c: u32) -> vec4<f32> {
    if row.is_q { return norm_q[(row.w_base + c) / 4u]; }
    return norm_k[(row.w_base + c) / 4u];
}
fn raw(at: u32) -> vec4<f32> { return qkv[at / 4u]; }
fn total(at: u32, left: u32) -> f32 { return dot(qkv[at / 4u], vec4<f32>(1.0)); }
fn squares(at: u32, left: u32, mean: f32) -> f32 {
    let v = qkv[at / 4u] - mean;
    return dot(v, v);
}
fn put(at: u32, v: vec4<f32>, left: u32) { q[at / 4u] = v; }

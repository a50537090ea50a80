// Channels one by one; io4.wgsl takes four.
@group(0) @binding(1) var<storage, read> qkv: array<f32>;             // [T, (Hq + 2 Hkv) D]
@group(0) @binding(4) var<storage, read> norm_q: array<f32>;          // [D] or [Hq D]; not read without NORM
@group(0) @binding(5) var<storage, read> norm_k: array<f32>;          // [D] or [Hkv D]; not read without NORM
@group(0) @binding(6) var<storage, read_write> q: array<f32>;         // [T, Hq D]

fn input(row: Row, c: u32) -> f32 {
    var v = qkv[row.base + c];
    if NORM > 0u && NORM < 4u {
        if NORM == 3u { v -= row.mean; }
        v = v * row.scale * weight(row, c);
    }
    if CLIPS { return clamp(v, -p.clip, p.clip); }
    return v;
}
fn weight(row: Row, c: u32) -> f32 {
    if row.is_q { return norm_q[row.w_base + c]; }
    return norm_k[row.w_base + c];
}
fn weights(row: Row, c: u32) -> vec4<f32> {
    let last = p.head_dim - 1u;
    return vec4<f32>(weight(row, c), weight(row, min(c + 1u, last)), weight(row, min(c + 2u, last)), weight(row, min(c + 3u, last)));
}
fn raw(at: u32) -> vec4<f32> { return vec4<f32>(qkv[at], qkv[at + 1u], qkv[at + 2u], qkv[at + 3u]); }
fn total(at: u32, left: u32) -> f32 {
    var sum = qkv[at];
    for (var i = 1u; i < min(left, 4u); i++) { sum += qkv[at + i]; }
    return sum;
}
fn squares(at: u32, left: u32, mean: f32) -> f32 {
    var v = qkv[at] - mean;
    var sum = v * v;
    for (var i = 1u; i < min(left, 4u); i++) {
        v = qkv[at + i] - mean;
        sum += v * v;
    }
    return sum;
}
fn put(at: u32, v: vec4<f32>, left: u32) {
    q[at] = v.x;
    if left > 1u { q[at + 1u] = v.y; }
    if left > 2u { q[at + 2u] = v.z; }
    if left > 3u { q[at + 3u] = v.w; }
}

// Channels one by one; latent_io4.wgsl takes four.
@group(0) @binding(1) var<storage, read> latents: array<f32>;         // [T, L + R]
@group(0) @binding(4) var<storage, read> absorbed: array<f32>;        // [T, Hq, L]
@group(0) @binding(5) var<storage, read> q_rope: array<f32>;          // [T, Hq, R]
@group(0) @binding(6) var<storage, read> norm: array<f32>;            // [L]
@group(0) @binding(8) var<storage, read_write> q: array<f32>;         // [T, Hq, L + R]

fn input(row: Row, c: u32) -> f32 {
    if row.is_q { return q_rope[row.base + c]; }
    return latents[row.base + c];
}
// Elements behind the last of four are not stored.
fn latent(at: u32) -> vec4<f32> {
    return vec4<f32>(latents[at], latents[at + 1u], latents[at + 2u], latents[at + 3u]);
}
fn squares(at: u32, left: u32) -> f32 {
    var sum = latents[at] * latents[at];
    for (var i = 1u; i < min(left, 4u); i++) { sum += latents[at + i] * latents[at + i]; }
    return sum;
}
fn weights(c: u32) -> vec4<f32> {
    let last = p.latent_dim - 1u;
    return vec4<f32>(norm[c], norm[min(c + 1u, last)], norm[min(c + 2u, last)], norm[min(c + 3u, last)]);
}
fn absorbed4(at: u32) -> vec4<f32> {
    return vec4<f32>(absorbed[at], absorbed[at + 1u], absorbed[at + 2u], absorbed[at + 3u]);
}
fn put(at: u32, v: vec4<f32>, left: u32) {
    q[at] = v.x;
    if left > 1u { q[at + 1u] = v.y; }
    if left > 2u { q[at + 2u] = v.z; }
    if left > 3u { q[at + 3u] = v.w; }
}

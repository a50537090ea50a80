// Latents and rotated parts of a multiple of four channels.
@group(0) @binding(1) var<storage, read> latents: array<vec4<f32>>;   // [T, (L + R) / 4]
@group(0) @binding(4) var<storage, read> absorbed: array<vec4<f32>>;  // [T, Hq, L / 4]
@group(0) @binding(5) var<storage, read> q_rope: array<vec4<f32>>;    // [T, Hq, R / 4]
@group(0) @binding(6) var<storage, read> norm: array<vec4<f32>>;      // [L / 4]
@group(0) @binding(8) var<storage, read_write> q: array<vec4<f32>>;   // [T, Hq, (L + R) / 4]

fn input4(row: Row, c: u32) -> vec4<f32> {
    if row.is_q { return q_rope[(row.base + c) / 4u]; }
    return latents[(row.base + c) / 4u];
}
fn latent(at: u32) -> vec4<f32> { return latents[at / 4u]; }
fn squares(at: u32, left: u32) -> f32 {
    let v = latents[at / 4u];
    return dot(v, v);
}
fn weights(c: u32) -> vec4<f32> { return norm[c / 4u]; }
fn absorbed4(at: u32) -> vec4<f32> { return absorbed[at / 4u]; }
fn put(at: u32, v: vec4<f32>, left: u32) { q[at / 4u] = v; }

@group(0) @binding(7) var<storage, read_write> k: array<f32>;

fn store_k(at: u32, x: vec4<f32>, left: u32) {
    k[at] = x.x;
    if left > 1u { k[at + 1u] = x.y; }
    if left > 2u { k[at + 2u] = x.z; }
    if left > 3u { k[at + 3u] = x.w; }
}

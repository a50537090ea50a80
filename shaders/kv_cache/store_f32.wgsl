//!import kv_cache/key_f32.wgsl
@group(0) @binding(8) var<storage, read_write> v: array<f32>;

fn store_v(at: u32, x: vec4<f32>, left: u32) {
    v[at] = x.x;
    if left > 1u { v[at + 1u] = x.y; }
    if left > 2u { v[at + 2u] = x.z; }
    if left > 3u { v[at + 3u] = x.w; }
}

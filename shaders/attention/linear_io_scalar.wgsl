// Channels one by one, 0 behind the last.
@group(0) @binding(1) var<storage, read> qkv: array<f32>;                 // [T, H, 3, D]
@group(0) @binding(4) var<storage, read_write> states: array<f32>;        // [slots, H, D, D]
@group(0) @binding(5) var<storage, read_write> o: array<f32>;             // [T, H, D]

fn load(base: u32, c: u32) -> vec4<f32> {
    var x = vec4<f32>(0.0);
    for (var j = 0u; j < min(p.head_dim - c, 4u); j++) { x[j] = qkv[base + c + j]; }
    return x;
}
fn load_state(base: u32, c: u32) -> vec4<f32> {
    var x = vec4<f32>(0.0);
    for (var j = 0u; j < min(p.head_dim - c, 4u); j++) { x[j] = states[base + c + j]; }
    return x;
}
fn store_state(base: u32, c: u32, x: vec4<f32>) {
    for (var j = 0u; j < min(p.head_dim - c, 4u); j++) { states[base + c + j] = x[j]; }
}
fn store(base: u32, c: u32, x: vec4<f32>) {
    for (var j = 0u; j < min(p.head_dim - c, 4u); j++) { o[base + c + j] = x[j]; }
}

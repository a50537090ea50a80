// Four channels at a time: D is a multiple of four.
@group(0) @binding(1) var<storage, read> qkv: array<vec4<f32>>;           // [T, H, 3, D/4]
@group(0) @binding(4) var<storage, read_write> states: array<vec4<f32>>;  // [slots, H, D, D/4]
@group(0) @binding(5) var<storage, read_write> o: array<vec4<f32>>;       // [T, H, D/4]

fn load(base: u32, c: u32) -> vec4<f32> { return qkv[(base + c) / 4u]; }
fn load_state(base: u32, c: u32) -> vec4<f32> { return states[(base + c) / 4u]; }
fn store_state(base: u32, c: u32, x: vec4<f32>) { states[(base + c) / 4u] = x; }
fn store(base: u32, c: u32, x: vec4<f32>) { o[(base + c) / 4u] = x; }

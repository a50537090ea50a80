// Eight neighbouring channels. A weight format is a part with one function:
//   fn load_w8(row: u32, k8: u32) -> Vec8      channels 8 k8 .. 8 k8 + 7 of a row; finite from channel K on,
// where x is zero
struct Vec8 { lo: vec4<f32>, hi: vec4<f32> }
//!import common/dot_add.wgsl

fn dot_add8(a: Vec8, b: Vec8, sum: f32) -> f32 { return dot_add(a.hi, b.hi, dot_add(a.lo, b.lo, sum)); }

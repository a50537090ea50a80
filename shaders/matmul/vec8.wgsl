// Eight neighbouring channels. A weight format is a part with one function:
//   fn load_w8(row: u32, k8: u32) -> Vec8      channels 8 k8 .. 8 k8 + 7 of a row; finite from channel K on,
// where x is zero
struct Vec8 { lo: vec4<f32>, hi: vec4<f32> }
//!import common/dot_add.wgsl

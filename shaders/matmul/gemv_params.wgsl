// What gemv.wgsl and gemv_lanes.wgsl share: parts.
//!import matmul/product.wgsl
//!import matmul/vec8.wgsl
//!import matmul/x_vec4.wgsl
//!slot weights
//!import matmul/weights_f32.wgsl
//!end
//!slot norm
fn load_norm_weight8(k8: u32) -> Vec8 { return Vec8(vec4<f32>(1.0), vec4<f32>(1.0)); }
fn load_norm_bias8(k8: u32) -> Vec8 { return Vec8(vec4<f32>(0.0), vec4<f32>(0.0)); }
//!end
//!import matmul/epilogue.wgsl

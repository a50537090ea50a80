// What gemv.wgsl and gemv_lanes.wgsl share: buffers and parts.
//!import matmul/product.wgsl
@group(0) @binding(6) var<storage, read> bias: array<f32>;            // [N]
@group(0) @binding(7) var<storage, read> residual: array<f32>;        // [M, Y]
@group(0) @binding(8) var<storage, read_write> y: array<f32>;         // [M, Y]
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

// 1 for the channels below K of a group of 4, 0 for the others.
fn inside(k: u32) -> vec4<f32> {
    return select(vec4<f32>(0.0), vec4<f32>(1.0), vec4<u32>(k, k + 1u, k + 2u, k + 3u) < vec4<u32>(p.num_k));
}

// What gemv.wgsl and gemv_lanes.wgsl share: parameters, buffers, parts.
struct Params {
    num_n: u32,     // rows of this part of W
    num_k: u32,
    num_k8: u32,    // groups of 8 channels: ceil(K / 8)
    n_base: u32,    // column of y of the part's first row
    y_stride: u32,
    grid_x: u32,
    alpha: f32,
    soft_cap: f32,
    eps: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
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

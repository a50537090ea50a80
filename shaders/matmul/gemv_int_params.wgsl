// What gemv_int.wgsl and gemv_int_lanes.wgsl share: parameters, buffers, parts.
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
//!import matmul/int_block.wgsl
//!slot x_int
//!import matmul/int_x_codes.wgsl
//!end
//!import matmul/epilogue.wgsl

struct Params {
    num_m: u32,
    num_n: u32,     // rows of this part of W
    num_k: u32,
    num_k8: u32,    // groups of 8 channels: ceil(K / 8)
    n_base: u32,    // column of y of the part's first row
    y_stride: u32,
    split_k8: u32,  // groups of 8 channels of one workgroup along z
    alpha: f32,
    soft_cap: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(4) var<storage, read> bias: array<f32>;            // [N]
@group(0) @binding(5) var<storage, read> residual: array<f32>;        // [M, Y]
@group(0) @binding(6) var<storage, read_write> y: array<f32>;         // [M, Y]; with SPLIT [splits, M, Y]
//!import matmul/vec8.wgsl
//!import matmul/x_vec4.wgsl
//!slot weights
//!import matmul/weights_f32.wgsl
//!end
//!import matmul/epilogue.wgsl

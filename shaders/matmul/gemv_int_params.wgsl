// What gemv_int.wgsl and gemv_int_lanes.wgsl share: buffers and parts.
//!import matmul/product.wgsl
@group(0) @binding(6) var<storage, read> bias: array<f32>;            // [N]
@group(0) @binding(7) var<storage, read> residual: array<f32>;        // [M, Y]
@group(0) @binding(8) var<storage, read_write> y: array<f32>;         // [M, Y]
//!import matmul/int_block.wgsl
//!slot x_int
//!import matmul/int_x_codes.wgsl
//!end
//!import matmul/epilogue.wgsl

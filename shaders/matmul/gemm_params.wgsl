//!import matmul/product.wgsl
@group(0) @binding(4) var<storage, read> bias: array<f32>;            // [N]
@group(0) @binding(5) var<storage, read> residual: array<f32>;        // [M, Y]
@group(0) @binding(6) var<storage, read_write> y: array<f32>;         // [M, Y]; with SPLIT [splits, M, Y]
//!import matmul/vec8.wgsl
//!import matmul/x_vec4.wgsl
//!slot weights
//!import matmul/weights_f32.wgsl
//!end
//!import matmul/epilogue.wgsl

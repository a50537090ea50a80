//!import matmul/product.wgsl
//!slot tile_rows
//!import matmul/tile_rows.wgsl
//!end
//!import matmul/vec8.wgsl
//!import matmul/x_vec4.wgsl
//!slot weights
//!import matmul/weights_f32.wgsl
//!end
//!import matmul/epilogue.wgsl

// What gemv_int.wgsl and gemv_int_lanes.wgsl share: parts.
//!import matmul/product.wgsl
//!import matmul/int_block.wgsl
//!slot x_int
//!import matmul/int_x_codes.wgsl
//!end
//!import matmul/epilogue.wgsl

// What gemm_int.wgsl and gemm_int_direct.wgsl share: parts.
//!import matmul/product.wgsl
//!slot tile_rows
//!import matmul/tile_rows.wgsl
//!end
//!import matmul/int_block.wgsl
//!import matmul/int_x_codes.wgsl
//!import matmul/epilogue.wgsl

const SPLIT: bool = false; //!spec

// Columns n and n + 1 of a row of y below `end`, or of the plain sums of a share of the channels; n is even.
fn store_pair(end: u32, row: u32, n: u32, split: u32, first: f32, second: f32) {
    let column = p.n_base + n;
    if row < end && n < p.num_n {
        if SPLIT {
            let at = (split * p.num_m + row) * p.y_stride + column;
            y[at] = first;
            if n + 1u < p.num_n { y[at + 1u] = second; }
        } else if GLU {
            store_glu(y_row(row), column, first, second);
        } else {
            store(y_row(row), column, first);
            if n + 1u < p.num_n { store(y_row(row), column + 1u, second); }
        }
    }
}

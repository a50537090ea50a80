// What gemm_int.wgsl and gemm_int_direct.wgsl share: parameters, buffers, parts.
struct Params {
    num_m: u32,
    num_n: u32,     // rows of this part of W
    num_k: u32,
    num_k8: u32,    // groups of 8 channels: ceil(K / 8)
    n_base: u32,    // column of y of the part's first row
    y_stride: u32,
    alpha: f32,
    soft_cap: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(5) var<storage, read> bias: array<f32>;            // [N]
@group(0) @binding(6) var<storage, read> residual: array<f32>;        // [M, Y]
@group(0) @binding(7) var<storage, read_write> y: array<f32>;         // [M, Y]
//!import matmul/int_block.wgsl
//!import matmul/int_x_codes.wgsl
//!import matmul/epilogue.wgsl

// Columns n and n + 1 of a row of y; n is even.
fn store_pair(row: u32, n: u32, first: f32, second: f32) {
    let column = p.n_base + n;
    if row < p.num_m && n < p.num_n {
        if GLU {
            store_glu(row, column, first, second);
        } else {
            store(row, column, first);
            if n + 1u < p.num_n { store(row, column + 1u, second); }
        }
    }
}

// One product, or its share of a part of W: parameters, and the buffers that all kernels of this folder which multiply
// have. Beside these they read x (1), w (2) and w_scales (3), those of integers also x_scales (7).
struct Params {
    num_m: u32,     // rows of x
    num_n: u32,     // rows of this part of W
    num_k: u32,
    num_k8: u32,    // groups of 8 channels: ceil(K / 8)
    n_base: u32,    // column of y of the part's first row
    y_stride: u32,  // columns of y
    grid_x: u32,    // few rows: workgroups along x; more continue along y
    split_k8: u32,  // many rows: groups of 8 channels of one workgroup along z
    norm_weight_at: u32,    // where `vectors` has the norm's weight [K] and bias [K], multiples of 4
    norm_bias_at: u32,
    bias_at: u32,   // and the bias [N] of the epilogue
    alpha: f32,
    soft_cap: f32,
    eps: f32,       // of the norm
    norm_add_weight_at: u32,    // of the norm behind the block before: weight [K], a multiple of 4
    norm_add_eps: f32,
    num_slots: u32,     // of experts: choices of a token
    x_slots: u32,       // slots that share a row of x: 1 or num_slots
    first_expert: u32,  // experts of this part of W, each with num_n rows
    num_experts: u32,
    slots_at: u32,      // element of `groups` behind the tiles
    glu_alpha: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
//!slot vectors
//!import matmul/vectors.wgsl
//!end
@group(0) @binding(5) var<storage, read> residual: array<f32>;        // [M, Y]
@group(0) @binding(6) var<storage, read_write> y: array<f32>;         // [M, Y]; with SPLIT [splits, M, Y]

//!slot bias
fn bias_of(column: u32) -> f32 { return vector_at(p.bias_at + column); }
//!end

// 1 for the channels below K of a group of 4, 0 for the others.
fn inside(k: u32) -> vec4<f32> {
    return select(vec4<f32>(0.0), vec4<f32>(1.0), vec4<u32>(k, k + 1u, k + 2u, k + 3u) < vec4<u32>(p.num_k));
}

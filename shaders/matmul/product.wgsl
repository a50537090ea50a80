// One product, or its share of a part of W: what every kernel of this folder that multiplies reads.
struct Params {
    num_m: u32,     // rows of x
    num_n: u32,     // rows of this part of W
    num_k: u32,
    num_k8: u32,    // groups of 8 channels: ceil(K / 8)
    n_base: u32,    // column of y of the part's first row
    y_stride: u32,  // columns of y
    grid_x: u32,    // few rows: workgroups along x; more continue along y
    split_k8: u32,  // many rows: groups of 8 channels of one workgroup along z
    alpha: f32,
    soft_cap: f32,
    eps: f32,       // of the norm
}
@group(0) @binding(0) var<uniform> p: Params;

// y[m, n] = epilogue(Σ_s partial[s, m, n]): the second half of a GEMM whose channels were split over workgroups.
// The order of the sum is fixed, so results are the same every time. An invocation computes one element of y.
const WG: u32 = 128u; //!spec
struct Params {
    num_m: u32,
    num_n: u32,
    num_splits: u32,
    y_stride: u32,
    grid_x: u32,
    alpha: f32,
    soft_cap: f32,
    glu_alpha: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> partial: array<f32>;         // [splits, M, N]
@group(0) @binding(2) var<storage, read> bias: array<f32>;            // [N]
@group(0) @binding(3) var<storage, read> residual: array<f32>;        // [M, Y]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;         // [M, Y]
fn bias_of(column: u32) -> f32 { return bias[column]; }
//!import matmul/epilogue.wgsl

fn sum_splits(at: u32) -> f32 {
    var sum = 0.0;
    for (var s = 0u; s < p.num_splits; s++) { sum += partial[s * p.num_m * p.num_n + at]; }
    return sum;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    let i = (group.y * p.grid_x + group.x) * WG + id;
    if i >= p.num_m * p.y_stride { return; }
    let row = i / p.y_stride;
    if GLU {
        let column = 2u * (i % p.y_stride);
        let at = row * p.num_n + column;
        store_glu(row, column, sum_splits(at), sum_splits(at + 1u));
    } else {
        store(row, i % p.y_stride, sum_splits(i));
    }
}

// y = x / sqrt(mean(x²) + eps) · w                                          (Zhang & Sennrich 2019)
// One workgroup per row; an invocation visits every WG-th channel of it. Accumulates in f32.
const WG: u32 = 256u; //!spec
struct Params { num_rows: u32, num_channels: u32, eps: f32, grid_x: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;               // [T, C]
@group(0) @binding(2) var<storage, read> w: array<f32>;               // [C]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;         // [T, C]
//!import common/reduce.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let row = group.y * p.grid_x + group.x;
    if row >= p.num_rows { return; }
    let row_base = row * p.num_channels;
    var sum_sq = 0.0;
    for (var i = lane.id; i < p.num_channels; i += WG) {
        let v = x[row_base + i];
        sum_sq += v * v;
    }
    let scale = inverseSqrt(workgroup_sum(sum_sq, lane) / f32(p.num_channels) + p.eps);
    for (var i = lane.id; i < p.num_channels; i += WG) {
        y[row_base + i] = x[row_base + i] * scale * w[i];
    }
}

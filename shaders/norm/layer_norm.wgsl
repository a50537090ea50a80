// y = (x - mean) / sqrt(var + eps) · w + b, var the biased variance                        (Ba et al. 2016)
// One workgroup per row. The deviations are taken from a first estimate of the mean, and their own mean corrects
// it: exact also where the mean is far larger than the spread, where E[x²] - E[x]² fails.
const WG: u32 = 256u; //!spec
const BIAS: bool = true; //!spec
struct Params { num_rows: u32, num_channels: u32, eps: f32, grid_x: u32 }
//!import common/lanes.wgsl
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<V>;                 // [T, C]
@group(0) @binding(2) var<storage, read> w: array<V>;                 // [C]
@group(0) @binding(3) var<storage, read> b: array<V>;                 // [C]; not read without BIAS
@group(0) @binding(4) var<storage, read_write> y: array<V>;           // [T, C]
//!import common/reduce.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let row = group.y * p.grid_x + group.x;
    if row >= p.num_rows { return; }
    let row_len = p.num_channels / VEC;
    let row_base = row * row_len;
    let count = f32(p.num_channels);
    var sum = 0.0;
    for (var i = lane.id; i < row_len; i += WG) {
        sum += sum_of(x[row_base + i]);
    }
    let estimate = workgroup_sum(sum, lane) / count;
    var deviation = 0.0;
    var sum_sq = 0.0;
    for (var i = lane.id; i < row_len; i += WG) {
        let d = x[row_base + i] - V(estimate);
        deviation += sum_of(d);
        sum_sq += sum_of(d * d);
    }
    let correction = workgroup_sum(deviation, lane) / count;
    let variance = max(workgroup_sum(sum_sq, lane) / count - correction * correction, 0.0);
    let scale = inverseSqrt(variance + p.eps);
    for (var i = lane.id; i < row_len; i += WG) {
        var v = ((x[row_base + i] - V(estimate)) - V(correction)) * scale * w[i];
        if BIAS { v += b[i]; }
        y[row_base + i] = v;
    }
}

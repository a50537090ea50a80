// r = x + residual;  y = r / sqrt(mean(r²) + eps) · w: the residual stream and the next block's input at once.
// One workgroup per row; an invocation visits every WG-th V of it and reads back only what it wrote itself.
const WG: u32 = 256u; //!spec
struct Params { num_rows: u32, num_channels: u32, eps: f32, grid_x: u32 }
//!import common/lanes.wgsl
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<V>;                 // [T, C]
@group(0) @binding(2) var<storage, read> residual: array<V>;          // [T, C]
@group(0) @binding(3) var<storage, read> w: array<V>;                 // [C]
@group(0) @binding(4) var<storage, read_write> r: array<V>;           // [T, C]
@group(0) @binding(5) var<storage, read_write> y: array<V>;           // [T, C]
//!import common/reduce.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let row = group.y * p.grid_x + group.x;
    if row >= p.num_rows { return; }
    let row_len = p.num_channels / VEC;
    let row_base = row * row_len;
    var sum_sq = 0.0;
    for (var i = lane.id; i < row_len; i += WG) {
        let v = x[row_base + i] + residual[row_base + i];
        r[row_base + i] = v;
        sum_sq += sum_of(v * v);
    }
    let scale = inverseSqrt(workgroup_sum(sum_sq, lane) / f32(p.num_channels) + p.eps);
    for (var i = lane.id; i < row_len; i += WG) {
        y[row_base + i] = r[row_base + i] * scale * w[i];
    }
}

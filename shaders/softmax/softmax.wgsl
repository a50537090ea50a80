// s = x · scale, then softcap · tanh(s / softcap), then + mask;  p = exp(s - lse), lse = log(sum exp s [+ exp sink])
// One workgroup per row, three visits: maximum, sum, result. Masks are finite. Scores end at
// -3.0e38, where maxima over a workgroup start: a row whose every entry is masked becomes uniform.
const WG: u32 = 256u; //!spec
const SOFTCAP: bool = false; //!spec
const MASK: bool = false; //!spec
struct Params { num_rows: u32, num_channels: u32, scale: f32, softcap: f32, has_sink: u32, grid_x: u32 }
//!import common/lanes.wgsl
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<V>;                 // [R, C]
@group(0) @binding(2) var<storage, read> mask: array<V>;              // [R, C]; not read without MASK
@group(0) @binding(3) var<storage, read> sink: array<f32>;            // [R]; not read without has_sink
@group(0) @binding(4) var<storage, read_write> y: array<V>;           // [R, C]
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;       // [R]
//!import common/reduce.wgsl

fn score(i: u32) -> V {
    var s = x[i] * p.scale;
    if SOFTCAP {
        // (1 - e) / (1 + e), e = exp(-2 |u|): no tanh, which some devices overflow.
        let e = exp(max(abs(s) * (-2.0 / p.softcap), V(-80.0)));
        s = sign(s) * p.softcap * ((V(1.0) - e) / (V(1.0) + e));
    }
    if MASK { s += mask[i]; }
    return max(s, V(-3.0e38));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let row = group.y * p.grid_x + group.x;
    if row >= p.num_rows { return; }
    let row_len = p.num_channels / VEC;
    let row_base = row * row_len;
    var largest = V(-3.0e38);
    for (var i = lane.id; i < row_len; i += WG) {
        largest = max(largest, score(row_base + i));
    }
    var m = workgroup_max(max_of(largest), lane);
    var extra = 0.0;
    if p.has_sink != 0u {
        let logit = sink[row];
        m = max(m, logit);
        extra = exp(max(logit - m, -100.0));
    }
    var sum = V(0.0);
    for (var i = lane.id; i < row_len; i += WG) {
        sum += exp(max(score(row_base + i) - V(m), V(-100.0)));
    }
    let total = workgroup_sum(sum_of(sum), lane) + extra;
    for (var i = lane.id; i < row_len; i += WG) {
        y[row_base + i] = exp(max(score(row_base + i) - V(m), V(-100.0))) / total;
    }
    if lane.id == 0u { lse[row] = m + log(total); }
}

// y = mix(scale · norm(x)) of each row, as f32 or as integers with their scales.
// One workgroup per row. A row that is mixed lies in workgroup memory, or in y where it does not fit there.
const WG: u32 = 256u; //!spec
const NORM: u32 = 0u; //!spec
const BIAS: bool = false; //!spec
const SCALE: bool = false; //!spec
const RMS: u32 = 1u;
const LAYER: u32 = 2u;
struct Params {
    num_rows: u32,
    num_channels: u32,
    grid_x: u32,
    eps: f32,
    gain: f32,                      // of the whole row: 1 / sqrt(n) of a Hadamard transform
    qmax: f32,                      // largest code
    clip: f32,
    group_blocks: u32,              // blocks of 32 channels with one scale; 0: the whole row
    butterfly_steps: u32,           // on V
    num_stages: u32,
    n2: u32,                        // columns of a Kronecker transform's view
    rows_per_round: u32,            // of a product with P2
    stages: array<vec4<u32>, 4>,    // products along one axis: order, stride in V, place in the table, columns at once
}
//!import common/lanes.wgsl
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<V>;                 // [T, n]
@group(0) @binding(2) var<storage, read> w: array<V>;                 // [n] weight of the norm
@group(0) @binding(3) var<storage, read> b: array<V>;                 // [n] bias of the norm
@group(0) @binding(4) var<storage, read> input_scale: array<V>;       // [n]
@group(0) @binding(5) var<storage, read> table: array<u32>;           // signs, P1 or a permutation
@group(0) @binding(6) var<storage, read> p2: array<V>;                // [n2, n2]
//!import common/reduce.wgsl
//!import transform/write_f32.wgsl
//!import transform/row_direct.wgsl
//!import transform/mix_none.wgsl
//!import transform/channels.wgsl

var<private> row_base: u32;
var<private> estimate: f32;         // of the mean
var<private> correction: f32;       // of the estimate
var<private> rstd: f32;

// The mixing's input but for the factor 1 / rms, which is left to the gain.
fn input(i: u32) -> V {
    var v = x[row_base + i];
    if NORM == LAYER { v = ((v - V(estimate)) - V(correction)) * rstd; }
    if NORM != 0u { v *= w[i]; }
    if BIAS { v += b[i]; }
    if SCALE { v *= input_scale[i]; }
    return v;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let row = group.y * p.grid_x + group.x;
    if row >= p.num_rows { return; }
    let row_len = p.num_channels / VEC;
    let count = f32(p.num_channels);
    row_base = row * row_len;
    if NORM == LAYER {                                   // as in norm/layer_norm.wgsl
        var sum = 0.0;
        for (var i = lane.id; i < row_len; i += WG) { sum += sum_of(x[row_base + i]); }
        estimate = workgroup_sum(sum, lane) / count;
        var deviation = 0.0;
        var squares = 0.0;
        for (var i = lane.id; i < row_len; i += WG) {
            let d = x[row_base + i] - V(estimate);
            deviation += sum_of(d);
            squares += sum_of(d * d);
        }
        correction = workgroup_sum(deviation, lane) / count;
        let variance = max(workgroup_sum(squares, lane) / count - correction * correction, 0.0);
        rstd = inverseSqrt(variance + p.eps);
    }
    var gain = p.gain;
    var sum_sq = 0.0;
    if NORM == RMS || KEEPS {
        for (var i = lane.id; i < row_len; i += WG) {
            if NORM == RMS {
                let v = x[row_base + i];
                sum_sq += sum_of(v * v);
            }
            if KEEPS { row_put(i, within(input(i))); }
        }
    }
    if NORM == RMS { gain *= inverseSqrt(workgroup_sum(sum_sq, lane) / count + p.eps); }
    mix_row(lane.id);
    write_row(row, gain, lane);
}

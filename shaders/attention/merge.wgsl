// Joins the results of the splits of a row: with M = max lse_s and w_s = exp(lse_s - M),
// o = Σ w_s o_s / Σ w_s and lse = M + ln Σ w_s. A sink adds exp(sink - M) to the sum and nothing to o.
// An invocation computes one element of the result (or four).
alias Element = vec4<f32>; //!spec
const WG: u32 = 64u; //!spec
const M0: f32 = -1.0e30;
struct Params {
    num_rows: u32,          // T · Hq
    num_q_heads: u32,
    row_elements: u32,      // Dv, or Dv / 4
    splits: u32,
    has_sinks: u32,
    grid_x: u32,
    unused0: u32,
    unused1: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> o_parts: array<Element>;     // [splits, T, Hq, Dv]
@group(0) @binding(2) var<storage, read> lse_parts: array<f32>;       // [splits, T, Hq]
@group(0) @binding(3) var<storage, read> sinks: array<f32>;           // [Hq]
@group(0) @binding(4) var<storage, read_write> o: array<Element>;     // [T, Hq, Dv]
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;       // [T, Hq]

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) id: u32) {
    let i = (group.y * p.grid_x + group.x) * WG + id;
    let row = i / p.row_elements;
    if row >= p.num_rows { return; }
    var m = M0;
    if p.has_sinks != 0u { m = sinks[row % p.num_q_heads]; }
    for (var s = 0u; s < p.splits; s++) { m = max(m, lse_parts[s * p.num_rows + row]); }
    var sum = 0.0;
    if p.has_sinks != 0u { sum = exp(sinks[row % p.num_q_heads] - m); }
    var result = Element();
    for (var s = 0u; s < p.splits; s++) {
        let part = lse_parts[s * p.num_rows + row];
        if part > 0.5 * M0 {
            let weight = exp(part - m);
            sum += weight;
            result += weight * o_parts[(s * p.num_rows + row) * p.row_elements + i % p.row_elements];
        }
    }
    o[i] = result * select(0.0, 1.0 / max(sum, 1.0e-37), sum > 0.0);
    if i % p.row_elements == 0u { lse[row] = select(M0, m + log(max(sum, 1.0e-37)), sum > 0.0); }
}

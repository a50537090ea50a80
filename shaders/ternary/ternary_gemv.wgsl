// y[m, n] = Σ_k x[m, k] W[n, k], W ternary in words of a dictionary, decoded on the way                     (QMoE, 2310.16795)
// A row is its least value times the sum of x at the symbols 1, plus its largest value times that at the symbols 2: zeros, most of
// all symbols, cost nothing but their share of a word. A team takes a row of W and a row of x, a word per invocation and step.
const WG: u32 = 64u; //!spec
struct Params { num_rows: u32, n: u32, k: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> p: Params;
//!import ternary/row.wgsl
@group(0) @binding(5) var<storage, read> x: array<f32>;                   // [M, K]
@group(0) @binding(6) var<storage, read_write> y: array<f32>;             // [M, N]
//!import ternary/team.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let row = team_row(group.y * p.grid_x + group.x, lane);
    if row >= p.n { return; }
    let x0 = group.z * p.k;
    let end = starts[row + 1u];
    var at_pair = 0u;
    var sums = vec2<f32>(0.0);                           // of x at the symbols 1 and 2
    for (var first = starts[row]; first < end; first += TEAM) {
        let word = first + team_lane(lane);
        var entry = vec2<u32>(0u);
        if word < end { entry = string_of(word); }
        let before = pairs_before(entry.x & 15u, lane);
        let column = x0 + 2u * (at_pair + before.x);
        for (var word_of = 0u; word_of < 2u; word_of++) {
            let symbols = entry[word_of] >> 4u;
            var left = places(symbols);
            while left != 0u {
                let bit = firstTrailingBit(left);
                left &= left - 1u;
                let v = x[column + 14u * word_of + bit / 2u];
                if ((symbols >> bit) & 1u) == 1u { sums.x += v; } else { sums.y += v; }
            }
        }
        at_pair += before.y;
    }
    let sum = team_sum(least_of(row) * sums.x + largest_of(row) * sums.y, lane);
    if TEAM == 1u || lane.id == 0u { y[group.z * p.n + row] = sum; }
}

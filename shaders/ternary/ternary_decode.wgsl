// w[n, k]: the values of a ternary matrix whose rows are words of a dictionary                              (QMoE, 2310.16795)
// A team takes a row, a word per invocation and step.
const WG: u32 = 64u; //!spec
struct Params { n: u32, k: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> p: Params;
//!import ternary/row.wgsl
@group(0) @binding(5) var<storage, read_write> w: array<f32>;             // [N, K]
//!import ternary/team.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let row = team_row(group.y * p.grid_x + group.x, lane);
    if row >= p.n { return; }
    let end = starts[row + 1u];
    let values = vec3<f32>(0.0, least_of(row), largest_of(row));
    var at_pair = 0u;
    for (var first = starts[row]; first < end; first += TEAM) {
        let word = first + team_lane(lane);
        var entry = vec2<u32>(0u);
        if word < end { entry = string_of(word); }
        let count = entry.x & 15u;
        let before = pairs_before(count, lane);
        let column = 2u * (at_pair + before.x);
        for (var i = 0u; i < 2u * count; i++) {
            let symbol = (entry[i / 14u] >> (4u + 2u * (i % 14u))) & 3u;
            if column + i < p.k { w[row * p.k + column + i] = values[min(symbol, 2u)]; }
        }
        at_pair += before.y;
    }
}

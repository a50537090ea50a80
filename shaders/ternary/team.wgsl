// A workgroup that takes a row: words side by side, each knows the pairs before its own.
//!import common/reduce.wgsl
const TEAM: u32 = WG;                                       // invocations of a row
var<workgroup> counts: array<u32, WG>;

// Pairs of the words before this one, and of all words of the team.
fn pairs_before(own: u32, lane: Lane) -> vec2<u32> {
    counts[lane.id] = own;
    workgroupBarrier();
    for (var span = 1u; span < WG; span *= 2u) {
        var sum = counts[lane.id];
        if lane.id >= span { sum += counts[lane.id - span]; }
        workgroupBarrier();
        counts[lane.id] = sum;
        workgroupBarrier();
    }
    let result = vec2<u32>(counts[lane.id] - own, counts[WG - 1u]);
    workgroupBarrier();                                  // scratch is free for the next call
    return result;
}

fn team_row(group: u32, lane: Lane) -> u32 { return group; }
fn team_lane(lane: Lane) -> u32 { return lane.id; }
fn team_sum(own: f32, lane: Lane) -> f32 { return workgroup_sum(own, lane); }

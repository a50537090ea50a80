// The contract of team.wgsl on subgroup operations.
//!import common/reduce_subgroup.wgsl
const TEAM: u32 = WG;
var<workgroup> counts: array<u32, WG / 4u>;

fn pairs_before(own: u32, lane: Lane) -> vec2<u32> {
    let inside = subgroupExclusiveAdd(own);
    let total = subgroupAdd(own);
    let subgroup = lane.id / lane.size;
    if lane.sub_id == 0u { counts[subgroup] = total; }
    workgroupBarrier();
    var result = vec2<u32>(inside, 0u);
    for (var i = 0u; i < (WG + lane.size - 1u) / lane.size; i++) {
        let count = counts[i];
        if i < subgroup { result.x += count; }
        result.y += count;
    }
    workgroupBarrier();                                  // scratch is free for the next call
    return result;
}

fn team_row(group: u32, lane: Lane) -> u32 { return group; }
fn team_lane(lane: Lane) -> u32 { return lane.id; }
fn team_sum(own: f32, lane: Lane) -> f32 { return workgroup_sum(own, lane); }

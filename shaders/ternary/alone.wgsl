// The contract of team.wgsl for an invocation that takes a row by itself: on CPUs, whose invocations wait for each other one by one.
struct Lane { @builtin(local_invocation_index) id: u32 }
const TEAM: u32 = 1u;
fn pairs_before(own: u32, lane: Lane) -> vec2<u32> { return vec2<u32>(0u, own); }
fn team_row(group: u32, lane: Lane) -> u32 { return group * WG + lane.id; }
fn team_lane(lane: Lane) -> u32 { return 0u; }
fn team_sum(own: f32, lane: Lane) -> f32 { return own; }

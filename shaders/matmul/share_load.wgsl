// How the invocations of a workgroup get the TM rows of x that all of them need: each loads every row.
struct Lane { @builtin(local_invocation_index) id: u32 }
fn own_x8(row: u32, k8: u32, lane: Lane) -> Vec8 { return Vec8(vec4<f32>(0.0), vec4<f32>(0.0)); }
fn share_x8(own: Vec8, row: u32, i: u32, k8: u32) -> Vec8 { return load_x8(min(row + i, p.num_m - 1u), k8); }

// How the invocations of a workgroup get the TM rows of x that all of them need: each loads every row.
struct Lane { @builtin(local_invocation_index) id: u32 }
fn own_row(row: u32, end: u32, lane: Lane) -> u32 { return 0u; }
fn own_x8(own_row: u32, k8: u32) -> Vec8 { return Vec8(vec4<f32>(0.0), vec4<f32>(0.0)); }
fn share_x8(own: Vec8, row: u32, i: u32, end: u32, k8: u32) -> Vec8 { return load_x8(x_row(min(row + i, end - 1u)), k8); }

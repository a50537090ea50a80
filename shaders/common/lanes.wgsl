// How many channels an invocation takes at a time: one here, four in lanes4.wgsl, with the same names.
alias V = f32;
const VEC: u32 = 1u;
fn sum_of(v: V) -> f32 { return v; }
fn max_of(v: V) -> f32 { return v; }

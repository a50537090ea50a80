// Four channels at a time; rows must be multiples of four.
alias V = vec4<f32>;
const VEC: u32 = 4u;
fn sum_of(v: V) -> f32 { return (v.x + v.y) + (v.z + v.w); }
fn max_of(v: V) -> f32 { return max(max(v.x, v.y), max(v.z, v.w)); }

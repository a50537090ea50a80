// The contract of dots.wgsl by shuffles; subgroups of at least 8.
//!enable subgroups
const LANES: u32 = 8u; //!spec
fn dot_sum(x: f32, id: u32) -> f32 {
    var sum = x + subgroupShuffleXor(x, 1u);
    sum += subgroupShuffleXor(sum, 2u);
    return sum + subgroupShuffleXor(sum, 4u);
}

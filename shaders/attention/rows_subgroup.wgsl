// The contract of rows.wgsl by shuffles; subgroups of at least 8.
//!enable subgroups
const LANES: u32 = 8u; //!spec
fn row_max(x: vec4<f32>, id: u32) -> vec4<f32> {
    var result = max(x, subgroupShuffleXor(x, 1u));
    result = max(result, subgroupShuffleXor(result, 2u));
    result = max(result, subgroupShuffleXor(result, 4u));
    workgroupBarrier();
    return result;
}

fn row_sum(x: vec4<f32>, id: u32) -> vec4<f32> {
    var result = x + subgroupShuffleXor(x, 1u);
    result += subgroupShuffleXor(result, 2u);
    result += subgroupShuffleXor(result, 4u);
    workgroupBarrier();
    return result;
}

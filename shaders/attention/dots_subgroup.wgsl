// The contract of dots.wgsl by shuffles; subgroups of at least 8.
//!enable subgroups
const LANES: u32 = 8u; //!spec

fn put_scores(products: array<f32, GR>, at: u32, count: u32, id: u32) {
    for (var g = 0u; g < GR; g++) { //!unroll
        var sum = products[g] + subgroupShuffleXor(products[g], 1u);
        sum += subgroupShuffleXor(sum, 2u);
        sum += subgroupShuffleXor(sum, 4u);
        if id % LANES == 0u {
            let key = at + id / LANES;
            weights[g][key] = select(M0, score2(sum), key < count);
        }
    } //!unroll
}

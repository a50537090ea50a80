// Scores of 16 keys at `at` from the products of 8 invocations each (8·n .. 8·n + 7 of key n), through workgroup
// memory; called from uniform control flow. Keys from `count` on are not visible.
const DOTS_SIZE: u32 = GR * WG;
var<workgroup> dot_scratch: array<f32, DOTS_SIZE>;

fn put_scores(products: array<f32, GR>, at: u32, count: u32, id: u32) {
    workgroupBarrier();
    for (var g = 0u; g < GR; g++) { //!unroll
        dot_scratch[g * WG + id] = products[g];
    } //!unroll
    workgroupBarrier();
    if id < GR * 16u {
        let row = id / 16u;
        let key = id % 16u;
        var sum = 0.0;
        // Each key starts at another of its 8 products: keys four apart would else read the same bank.
        for (var i = 0u; i < 8u; i++) { sum += dot_scratch[row * WG + key * 8u + (i + key / 4u) % 8u]; }
        weights[row][at + key] = select(M0, score2(sum), at + key < count);
    }
}

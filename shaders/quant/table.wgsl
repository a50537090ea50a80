// A quantised table of embedding.wgsl.
//!import matmul/vec8.wgsl
//!import quant/weights.wgsl
fn load4(row: u32, i: u32) -> vec4<f32> {
    let q = codes8(row, i / 2u);
    return dequantise4(select(q.x, q.y, i % 2u == 1u), scale_of(row, group_of(i / 2u)));
}

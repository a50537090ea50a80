// Weights for loops over blocks of 32 channels: what a block has in common is loaded once.
struct BlockState { first: vec2<f32>, last: vec2<f32>, high: vec2<u32> }

// Scales of both halves of a block (of one half, where groups are smaller: then they are loaded as they come), high bits.
fn block_state(row: u32, block: u32) -> BlockState {
    var s: BlockState;
    if SPAN8 > 1u { s.first = scale_of(row, group_of(4u * block)); }
    s.last = s.first;
    if SPAN8 == 2u { s.last = scale_of(row, group_of(min(4u * block + 2u, p.num_k8 - 1u))); }
    if CODE == CODE_INT5 { s.high.x = code_word(row, 4u * num_blocks() + block); }
    if CODE == CODE_INT6 {
        let i = 4u * num_blocks() + 2u * block;
        s.high = vec2<u32>(code_word(row, i), code_word(row, i + 1u));
    }
    return s;
}

// Channels 8 k8 .. 8 k8 + 7, the j-th of the block, as load_w8 gives them.
fn block_w8(s: BlockState, row: u32, k8: u32, j: u32) -> Vec8 {
    var q: vec2<u32>;
    if CODE == CODE_INT5 || CODE == CODE_INT6 {
        let v = code_word(row, k8);
        let high = select(s.high.x, s.high.y, CODE == CODE_INT6 && j >= 2u);
        q = (vec2<u32>(v, v >> 4u) & vec2<u32>(LOW4)) | vec2<u32>(high_of(high, 2u * j), high_of(high, 2u * j + 1u));
    } else {
        q = codes8(row, k8);
    }
    var scale = select(s.first, s.last, j >= 2u);
    if SPAN8 == 1u { scale = scale_of(row, group_of(k8)); }
    return Vec8(dequantise4(q.x, scale), dequantise4(q.y, scale));
}

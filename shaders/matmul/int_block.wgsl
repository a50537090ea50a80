// Blocks of 32 channels of integer products. The importer declares `p` with num_k and num_k8.
//   Σ_k w x = Σ_blocks s_x · (s_w (Σ q a - z Σ a))      or  s_x · (s_w Σ q a + m Σ a)  with minima
// q are the integers of the codes of W, a those of x. Groups of W are multiples of 32 channels, 16, or the row.
//!import matmul/vec8.wgsl
//!import quant/weights.wgsl
const HALVES: bool = GROUP8 == 2u;

// A block of x: word j of lo holds channels 8 j .. 8 j + 3, of hi 8 j + 4 .. 8 j + 7, as signed bytes.
struct XBlock {
    lo: vec4<u32>,
    hi: vec4<u32>,
    scale: f32,
    sums: vec2<i32>,    // of the first and of the last 16 channels
    sum_sq: f32,        // of the values before quantisation, where they are to be normalised
}

// (s, z) or (s, m) of the first and of the last 16 channels of a block.
struct BlockScale { first: vec2<f32>, last: vec2<f32> }

fn block_scale(row: u32, block: u32) -> BlockScale {
    if HALVES {
        return BlockScale(scale_of(row, 2u * block), scale_of(row, min(2u * block + 1u, num_groups() - 1u)));
    }
    let s = scale_of(row, group_of(4u * block));
    return BlockScale(s, s);
}

// All integers stay below 2^24: exact in f32.
fn scaled(s: vec2<f32>, dot: i32, sum: i32) -> f32 {
    if ZERO == ZERO_IS_MIN { return s.x * f32(dot) + s.y * f32(sum); }
    if ZERO == ZERO_IS_FIXED {
        if ZERO_FIXED == 0u { return s.x * f32(dot); }
        return s.x * f32(dot - i32(ZERO_FIXED) * sum);
    }
    return s.x * (f32(dot) - s.y * f32(sum));
}

fn block_product(s: BlockScale, dots: vec2<i32>, sums: vec2<i32>) -> f32 {
    if HALVES { return scaled(s.first, dots.x, sums.x) + scaled(s.last, dots.y, sums.y); }
    return scaled(s.first, dots.x + dots.y, sums.x + sums.y);
}

// Σ q a of the first and of the last 16 channels.
fn block_dots(q: Codes32, lo: vec4<u32>, hi: vec4<u32>) -> vec2<i32> {
    return vec2<i32>(
        dot4I8Packed(q.lo.x, lo.x) + dot4I8Packed(q.hi.x, hi.x) + dot4I8Packed(q.lo.y, lo.y) + dot4I8Packed(q.hi.y, hi.y),
        dot4I8Packed(q.lo.z, lo.z) + dot4I8Packed(q.hi.z, hi.z) + dot4I8Packed(q.lo.w, lo.w) + dot4I8Packed(q.hi.w, hi.w));
}

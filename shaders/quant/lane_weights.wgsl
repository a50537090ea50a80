// Codes and scales as gemv_products.wgsl takes them, in the cheap forms of a CPU driver: codes stay where they are in their
// word and are converted with their place value, which x carries inverted; the scales of a span of LANES groups of 8 channels
// come with one word or two. The importer declares LANES.
const GROUP_BITS: u32 = (8u + 8u * u32(SCALE == SCALE_F16) + 24u * u32(SCALE == SCALE_F32)) * (1u + u32(ZERO != ZERO_IS_FIXED));
const SPAN_BITS: u32 = LANES / max(GROUP8, 1u) * GROUP_BITS;
// Whether a span has whole groups, all under one factor of the second level, in whole words or a whole part of one.
const SPAN_WORDS: bool = GROUP8 > 0u && LANES % max(GROUP8, 1u) == 0u && (SPAN_BITS == 64u || 32u % max(SPAN_BITS, 1u) == 0u)
    && (SUPER_GROUPS * GROUP8) % LANES == 0u;
// Whether a group is a span or several.
const SPAN_IN_GROUP: bool = GROUP8 % LANES == 0u;

// Words of the scales of the span from channel 8 k8 on, the first group in the lowest bits.
fn span_scales(row: u32, k8: u32) -> vec2<u32> {
    if !SPAN_WORDS { return vec2<u32>(0u); }
    let bit = k8 / max(GROUP8, 1u) * GROUP_BITS;
    let at = row * scale_stride() + super_words() + bit / 32u;
    if SPAN_BITS == 64u { return vec2<u32>(w_scales[at], w_scales[at + 1u]); }
    return vec2<u32>(w_scales[at] >> (bit % 32u), 0u);
}

// (s, z) or (s, m) of group i of a span, as scale_of.
fn span_scale(words: vec2<u32>, factor: vec2<f32>, i: u32) -> vec2<f32> {
    let bit = i * GROUP_BITS;
    let v = select(words.x, words.y, bit >= 32u) >> (bit % 32u);
    var s = vec2<f32>(0.0, f32(ZERO_FIXED));
    if SCALE == SCALE_F32 {
        s.x = bitcast<f32>(v);
        if ZERO != ZERO_IS_FIXED { s.y = bitcast<f32>(words.y); }
    } else if SCALE == SCALE_F16 {
        let pair = from_f16x2(v);
        s.x = pair.x;
        if ZERO != ZERO_IS_FIXED { s.y = pair.y; }
    } else {
        s.x = from_byte(v & 255u);
        if ZERO != ZERO_IS_FIXED { s.y = from_byte((v >> 8u) & 255u); }
    }
    s.x *= factor.x;
    if ZERO == ZERO_IS_MIN { s.y *= factor.y; }
    return s;
}

// Whether codes are converted with a place value, and not by code_values.
const PLACED: bool = CODE != CODE_E4M3;
// Whether they are signed bytes.
const SIGNED: bool = CODE > CODE_INT6;
const PLACES: vec4<f32> = vec4<f32>(1.0, 0.00390625, 1.52587890625e-5, 5.9604644775390625e-8);

// The codes of codes32, with integers of 4 bits as they are stored: channels 8 j .. 8 j + 3 in the lower halves of the bytes of
// lo[j], channels 8 j + 4 .. 8 j + 7 in the upper halves of those of hi[j].
fn placed32(row: u32, block: u32) -> Codes32 {
    if CODE_BITS > 4u || SIGNED { return codes32(row, block); }
    let v = words_at(row * code_stride() + block);
    return Codes32(v, v);
}

// Signed: the byte at the top of a word. Unsigned: where it is; the last code of 4 bits at the bottom, as the top one is the sign.
fn values_lo(v: u32) -> vec4<f32> {
    if !PLACED { return code_values(v); }
    if SIGNED {
        let top = vec4<u32>(v << 24u, (v << 16u) & 0xff000000u, (v << 8u) & 0xff000000u, v & 0xff000000u);
        return vec4<f32>(bitcast<vec4<i32>>(top));
    }
    let mask = select(63u, 15u, CODE_BITS == 4u);
    return vec4<f32>(bitcast<vec4<i32>>(vec4<u32>(v) & vec4<u32>(mask, mask << 8u, mask << 16u, mask << 24u)));
}

fn values_hi(v: u32) -> vec4<f32> {
    if CODE_BITS > 4u || SIGNED { return values_lo(v); }
    return vec4<f32>(bitcast<vec4<i32>>(vec4<u32>(v & 0xf0u, v & 0xf000u, v & 0xf00000u, v >> 28u)));
}

// What x is multiplied by for them.
fn places_lo() -> vec4<f32> {
    if !PLACED { return vec4<f32>(1.0); }
    if SIGNED { return vec4<f32>(PLACES.w); }
    return PLACES;
}

fn places_hi() -> vec4<f32> {
    if CODE_BITS > 4u || SIGNED { return places_lo(); }
    return vec4<f32>(0.0625 * PLACES.xyz, 1.0);
}

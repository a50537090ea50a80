// Σ q a of blocks of 32 channels by 32-bit multiplications, two products each, for CPUs without 8-bit dot products:
//   (q0 + 2^16 q2) (a2 + 2^16 a0) = q0 a2 + 2^16 (q0 a0 + q2 a2)   (mod 2^32)
// With q from 0 up, sums of such products are exact while both halves stay below 2^15 in magnitude; rounding to the
// upper half then takes the lower one away. a is at least -128: 8 products of q < 16, 4 of q < 32, 2 of q < 64.
struct XPairs { even_lo: vec4<u32>, odd_lo: vec4<u32>, even_hi: vec4<u32>, odd_hi: vec4<u32> }
const BYTES: u32 = 0x00ff00ffu;
const SIGNS: u32 = 0x80808080u;
// What is added to codes so that they start at 0.
const SHIFTED: i32 = 128 * i32(CODE == CODE_INT8 || CODE == CODE_IQ4_NL) + 12 * i32(CODE == CODE_E2M1);

// a2 + 2^16 a0 of the bytes of a word.
fn even_pairs(v: vec4<u32>) -> vec4<u32> {
    return bitcast<vec4<u32>>((bitcast<vec4<i32>>(v << vec4<u32>(24u)) >> vec4<u32>(8u))
        + (bitcast<vec4<i32>>(v << vec4<u32>(8u)) >> vec4<u32>(24u)));
}

fn x_pairs(b: XBlock) -> XPairs {
    return XPairs(even_pairs(b.lo), even_pairs(b.lo >> vec4<u32>(8u)), even_pairs(b.hi), even_pairs(b.hi >> vec4<u32>(8u)));
}

fn pair_sums(q: vec4<u32>, even: vec4<u32>, odd: vec4<u32>) -> vec4<u32> {
    return (q & vec4<u32>(BYTES)) * even + ((q >> vec4<u32>(8u)) & vec4<u32>(BYTES)) * odd;
}

fn upper(v: vec4<u32>) -> vec4<i32> { return bitcast<vec4<i32>>(v + vec4<u32>(0x8000u)) >> vec4<u32>(16u); }

fn upper2(v: vec2<u32>) -> vec2<i32> { return bitcast<vec2<i32>>(v + vec2<u32>(0x8000u)) >> vec2<u32>(16u); }

fn nibble_dots(lo: vec4<u32>, hi: vec4<u32>, a: XPairs) -> vec2<i32> {
    let v = pair_sums(lo, a.even_lo, a.odd_lo) + pair_sums(hi, a.even_hi, a.odd_hi);
    return upper2(vec2<u32>(v.x + v.y, v.z + v.w));
}

// Without the share of SHIFTED.
fn shifted_dots(q: Codes32, a: XPairs) -> vec2<i32> {
    if CODE_BITS == 8u || CODE == CODE_IQ4_NL {
        let lo = q.lo ^ vec4<u32>(SIGNS);
        let hi = q.hi ^ vec4<u32>(SIGNS);
        return nibble_dots(lo & vec4<u32>(LOW4), hi & vec4<u32>(LOW4), a)
            + 16 * nibble_dots((lo >> vec4<u32>(4u)) & vec4<u32>(LOW4), (hi >> vec4<u32>(4u)) & vec4<u32>(LOW4), a);
    }
    if CODE == CODE_INT6 {
        let v = upper(pair_sums(q.lo, a.even_lo, a.odd_lo)) + upper(pair_sums(q.hi, a.even_hi, a.odd_hi));
        return vec2<i32>(v.x + v.y, v.z + v.w);
    }
    if CODE == CODE_INT5 || CODE == CODE_E2M1 {
        var lo = q.lo;
        var hi = q.hi;
        if CODE == CODE_E2M1 {
            lo = (lo ^ vec4<u32>(SIGNS)) - vec4<u32>(0x74747474u);
            hi = (hi ^ vec4<u32>(SIGNS)) - vec4<u32>(0x74747474u);
        }
        let v = upper(pair_sums(lo, a.even_lo, a.odd_lo) + pair_sums(hi, a.even_hi, a.odd_hi));
        return vec2<i32>(v.x + v.y, v.z + v.w);
    }
    return nibble_dots(q.lo, q.hi, a);
}

fn pair_dots(q: Codes32, a: XPairs, sums: vec2<i32>) -> vec2<i32> {
    if SHIFTED == 0 { return shifted_dots(q, a); }
    return shifted_dots(q, a) - SHIFTED * sums;
}

// Quantised weights [N, K] in the layout of kernels/src/quant/pack.rs. The importer declares `p` with p.num_k8 (groups of
// 8 channels of a row) and the struct Vec8.
//   w = s (v - z)   with ZERO fixed or point         w = s v + m   with ZERO min
// v is the integer of a code (E2M1: twice the value, s is halved for it), s the scale of its group times that of the
// second level.
const CODE: u32 = 0u; //!spec
const CODE_BITS: u32 = 4u; //!spec
const SCALE: u32 = 1u; //!spec
const ZERO: u32 = 0u; //!spec
const ZERO_FIXED: u32 = 8u; //!spec
// Groups of 8 channels with one scale; 0: all of the row.
const GROUP8: u32 = 4u; //!spec
// Second level: 0 none, 1 f16, 2 f32; over so many scales, 0: all of the row.
const SUPER: u32 = 0u; //!spec
const SUPER_GROUPS: u32 = 0u; //!spec
const CODE_INT5: u32 = 1u;
const CODE_INT6: u32 = 2u;
const CODE_INT8: u32 = 3u;
const CODE_E2M1: u32 = 4u;
const CODE_IQ4_NL: u32 = 5u;
const CODE_E4M3: u32 = 6u;
const SCALE_F32: u32 = 0u;
const SCALE_F16: u32 = 1u;
const SCALE_E8M0: u32 = 2u;
const SCALE_E4M3: u32 = 3u;
const ZERO_IS_FIXED: u32 = 0u;
const ZERO_IS_MIN: u32 = 2u;
const LOW4: u32 = 0x0f0f0f0fu;
//!import quant/words.wgsl
@group(0) @binding(3) var<storage, read> w_scales: array<u32>;        // [N, scale_stride()]

fn num_blocks() -> u32 { return (p.num_k8 + 3u) / 4u; }               // blocks of 32 channels
fn code_stride() -> u32 { return (num_blocks() * CODE_BITS + 3u) / 4u; }

fn num_groups() -> u32 {
    if GROUP8 == 0u { return 1u; }
    return (p.num_k8 + GROUP8 - 1u) / max(GROUP8, 1u);
}

fn group_of(k8: u32) -> u32 {
    if GROUP8 == 0u { return 0u; }
    return k8 / max(GROUP8, 1u);
}

fn super_words() -> u32 {
    if SUPER == 0u { return 0u; }
    var count = 1u;
    if SUPER_GROUPS > 0u { count = (num_groups() + SUPER_GROUPS - 1u) / max(SUPER_GROUPS, 1u); }
    return (count * select(1u, 2u, SUPER == 2u) * select(1u, 2u, ZERO == ZERO_IS_MIN) + 1u) / 2u;
}

fn scale_stride() -> u32 {
    let bytes = select(select(1u, 2u, SCALE == SCALE_F16), 4u, SCALE == SCALE_F32);
    return super_words() + (num_groups() * bytes * select(2u, 1u, ZERO == ZERO_IS_FIXED) + 3u) / 4u;
}

// Values of four E4M3 codes, one in each element.
fn from_e4m3x4(c: vec4<u32>) -> vec4<f32> {
    let m = c & vec4<u32>(127u);
    let normal = bitcast<vec4<f32>>((m << vec4<u32>(20u)) + vec4<u32>(120u << 23u));
    let v = select(normal, vec4<f32>(m) / 512.0, m < vec4<u32>(8u));
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(v) | ((c & vec4<u32>(128u)) << vec4<u32>(24u)));
}

fn from_e4m3(c: u32) -> f32 { return from_e4m3x4(vec4<u32>(c)).x; }

// Finite f16 in the upper halves, also those below the normal ones, which unpack2x16float may flush where nobody says that it
// does not. With the exponent moved to that of an f32 these become 2^-15 (1 + m / 1024) =: a instead of
// 2^-14 m / 1024 = 2 a - 2^-14; of normal ones a is the smaller.
const F16_BELOW_NORMAL: bool = false; //!spec
fn from_upper_f16(h: vec2<u32>) -> vec2<f32> {
    let a = bitcast<vec2<f32>>((((h >> vec2<u32>(16u)) & vec2<u32>(0x7fffu)) << vec2<u32>(13u)) + vec2<u32>(112u << 23u));
    let v = min(a, fma(vec2<f32>(2.0), a, vec2<f32>(-6.1035156e-5)));
    return bitcast<vec2<f32>>(bitcast<vec2<u32>>(v) | (h & vec2<u32>(0x80000000u)));
}

// Both halves of a word.
fn from_f16x2(bits: u32) -> vec2<f32> {
    if F16_BELOW_NORMAL { return unpack2x16float(bits); }
    return from_upper_f16(vec2<u32>(bits << 16u, bits));
}

// Half i % 2 of a word.
fn from_f16(bits: u32, i: u32) -> f32 {
    let upper = bits << ((16u * i + 16u) & 16u);
    if F16_BELOW_NORMAL { return unpack2x16float(upper).y; }
    return from_upper_f16(vec2<u32>(upper)).x;
}

// A scale in one byte.
fn from_byte(c: u32) -> f32 {
    if SCALE == SCALE_E8M0 { return bitcast<f32>(c << 23u); }
    if SCALE == SCALE_E4M3 { return from_e4m3(c); }
    return f32(bitcast<i32>(c << 24u) >> 24u);
}

// (s, z) or (s, m) of group g of a row.
fn scale_of(row: u32, g: u32) -> vec2<f32> {
    let base = row * scale_stride();
    let first = base + super_words();
    var v = vec2<f32>(0.0, f32(ZERO_FIXED));
    if ZERO == ZERO_IS_FIXED {
        if SCALE == SCALE_F32 {
            v.x = bitcast<f32>(w_scales[first + g]);
        } else if SCALE == SCALE_F16 {
            v.x = from_f16(w_scales[first + g / 2u], g);
        } else {
            v.x = from_byte((w_scales[first + g / 4u] >> (8u * (g % 4u))) & 255u);
        }
    } else if SCALE == SCALE_F32 {
        v = vec2<f32>(bitcast<f32>(w_scales[first + 2u * g]), bitcast<f32>(w_scales[first + 2u * g + 1u]));
    } else if SCALE == SCALE_F16 {
        v = from_f16x2(w_scales[first + g]);
    } else {
        let pair = w_scales[first + g / 2u] >> (16u * (g % 2u));
        v = vec2<f32>(from_byte(pair & 255u), from_byte((pair >> 8u) & 255u));
    }
    if SUPER > 0u || CODE == CODE_E2M1 { v *= factor_of(row, g); }
    return v;
}

// What the second level multiplies s and m of group g by (1 what it leaves alone), and E2M1.
fn factor_of(row: u32, g: u32) -> vec2<f32> {
    var f = vec2<f32>(1.0);
    let base = row * scale_stride();
    var i = 0u;
    if SUPER_GROUPS > 0u { i = g / max(SUPER_GROUPS, 1u); }
    if SUPER > 0u && ZERO == ZERO_IS_MIN {
        if SUPER == 1u {
            f = from_f16x2(w_scales[base + i]);
        } else {
            f = vec2<f32>(bitcast<f32>(w_scales[base + 2u * i]), bitcast<f32>(w_scales[base + 2u * i + 1u]));
        }
    } else if SUPER == 1u {
        f.x = from_f16(w_scales[base + i / 2u], i);
    } else if SUPER == 2u {
        f.x = bitcast<f32>(w_scales[base + i]);
    }
    if CODE == CODE_E2M1 { f.x *= 0.5; }
    return f;
}

// 255 in each byte that holds a 1: a multiplication takes GPUs four times as long.
fn spread(ones: u32) -> u32 { return (ones << 8u) - ones; }

// Four E2M1 codes (one in each byte) as signed bytes of twice their value.
fn e2m1_ints(c: u32) -> u32 {
    let v = c & 0x07070707u;
    let low = v & 0x03030303u;
    let big = spread((v >> 2u) & 0x01010101u);                        // codes 4..7: 4, 6, 8, 12
    let high = 2u * (low + 0x02020202u) + 2u * (low & ((low >> 1u) & 0x01010101u));
    let d = (low & ~big) | (high & big);
    let any = (v | (v >> 1u) | (v >> 2u)) & 0x01010101u;
    let sign = (c >> 3u) & any;                                       // the negative zero is zero
    return (d ^ spread(sign)) + sign;
}

fn iq4_nl_int(c: u32) -> u32 {
    let table = array<u32, 4>(0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u);
    var word = table[0];
    if (c & 12u) == 4u { word = table[1]; }
    if (c & 12u) == 8u { word = table[2]; }
    if (c & 12u) == 12u { word = table[3]; }
    return (word >> (8u * (c & 3u))) & 255u;
}

fn iq4_nl_ints(c: u32) -> u32 {
    return iq4_nl_int(c & 15u) | (iq4_nl_int((c >> 8u) & 15u) << 8u) | (iq4_nl_int((c >> 16u) & 15u) << 16u)
        | (iq4_nl_int((c >> 24u) & 15u) << 24u);
}

fn code_word(row: u32, i: u32) -> u32 { return word_at(row * code_stride() + i / 4u, i % 4u); }

// The high bits of quad i (channels 4 i .. 4 i + 3) of a block of 32, in place above 4 low bits, from the word with them.
fn high_of(word: u32, quad: u32) -> u32 {
    if CODE == CODE_INT5 { return ((word >> quad) & 0x01010101u) << 4u; }
    return ((word >> (2u * (quad % 4u))) & 0x03030303u) << 4u;
}

fn high_bits(row: u32, block: u32, quad: u32) -> u32 {
    if CODE == CODE_INT5 { return high_of(code_word(row, 4u * num_blocks() + block), quad); }
    return high_of(code_word(row, 4u * num_blocks() + 2u * block + quad / 4u), quad);
}

// Channels 8 k8 .. 8 k8 + 7 as two words of four signed bytes; E4M3 codes as they are.
fn codes8(row: u32, k8: u32) -> vec2<u32> {
    if CODE_BITS == 8u { return vec2<u32>(code_word(row, 2u * k8), code_word(row, 2u * k8 + 1u)); }
    let v = code_word(row, k8);
    var q = vec2<u32>(v, v >> 4u) & vec2<u32>(LOW4);
    if CODE_BITS > 4u {
        let quad = 2u * (k8 % 4u);
        q |= vec2<u32>(high_bits(row, k8 / 4u, quad), high_bits(row, k8 / 4u, quad + 1u));
    }
    if CODE == CODE_E2M1 { q = vec2<u32>(e2m1_ints(q.x), e2m1_ints(q.y)); }
    if CODE == CODE_IQ4_NL { q = vec2<u32>(iq4_nl_ints(q.x), iq4_nl_ints(q.y)); }
    return q;
}

// The same of 16 channels, k8 even.
fn codes16(row: u32, k8: u32) -> vec4<u32> {
    if CODE_BITS == 8u { return words_at(row * code_stride() + k8 / 2u); }
    let at = row * code_stride() + k8 / 4u;
    let first = word_at(at, k8 % 4u);
    let second = word_at(at, k8 % 4u + 1u);
    var q = vec4<u32>(first, first >> 4u, second, second >> 4u) & vec4<u32>(LOW4);
    if CODE_BITS > 4u {
        let quad = 2u * (k8 % 4u);
        let block = k8 / 4u;
        q |= vec4<u32>(high_bits(row, block, quad), high_bits(row, block, quad + 1u),
            high_bits(row, block, quad + 2u), high_bits(row, block, quad + 3u));
    }
    if CODE == CODE_E2M1 { q = vec4<u32>(e2m1_ints(q.x), e2m1_ints(q.y), e2m1_ints(q.z), e2m1_ints(q.w)); }
    if CODE == CODE_IQ4_NL { q = vec4<u32>(iq4_nl_ints(q.x), iq4_nl_ints(q.y), iq4_nl_ints(q.z), iq4_nl_ints(q.w)); }
    return q;
}

// The 32 channels of a block: lo[j] holds 8 j .. 8 j + 3, hi[j] 8 j + 4 .. 8 j + 7, as signed bytes.
struct Codes32 { lo: vec4<u32>, hi: vec4<u32> }

fn codes32(row: u32, block: u32) -> Codes32 {
    let base = row * code_stride();
    if CODE_BITS == 8u {
        let a = words_at(base + 2u * block);
        let b = words_at(base + 2u * block + 1u);
        return Codes32(vec4<u32>(a.x, a.z, b.x, b.z), vec4<u32>(a.y, a.w, b.y, b.w));
    }
    let v = words_at(base + block);
    var q = Codes32(v & vec4<u32>(LOW4), (v >> vec4<u32>(4u)) & vec4<u32>(LOW4));
    if CODE == CODE_INT5 {
        let h = code_word(row, 4u * num_blocks() + block);
        q.lo |= vec4<u32>(h << 4u, h << 2u, h, h >> 2u) & vec4<u32>(0x10101010u);
        q.hi |= vec4<u32>(h << 3u, h << 1u, h >> 1u, h >> 3u) & vec4<u32>(0x10101010u);
    }
    if CODE == CODE_INT6 {
        let i = 4u * num_blocks() + 2u * block;
        let h = vec2<u32>(code_word(row, i), code_word(row, i + 1u));
        q.lo |= vec4<u32>(h << vec2<u32>(4u), h).xzyw & vec4<u32>(0x30303030u);
        q.hi |= vec4<u32>(h << vec2<u32>(2u), h >> vec2<u32>(2u)).xzyw & vec4<u32>(0x30303030u);
    }
    if CODE == CODE_E2M1 {
        q.lo = vec4<u32>(e2m1_ints(q.lo.x), e2m1_ints(q.lo.y), e2m1_ints(q.lo.z), e2m1_ints(q.lo.w));
        q.hi = vec4<u32>(e2m1_ints(q.hi.x), e2m1_ints(q.hi.y), e2m1_ints(q.hi.z), e2m1_ints(q.hi.w));
    }
    if CODE == CODE_IQ4_NL {
        q.lo = vec4<u32>(iq4_nl_ints(q.lo.x), iq4_nl_ints(q.lo.y), iq4_nl_ints(q.lo.z), iq4_nl_ints(q.lo.w));
        q.hi = vec4<u32>(iq4_nl_ints(q.hi.x), iq4_nl_ints(q.hi.y), iq4_nl_ints(q.hi.z), iq4_nl_ints(q.hi.w));
    }
    return q;
}

// Channels in steps of 8 with one scale within a block of 32.
const SPAN8: u32 = select(select(1u, 2u, GROUP8 % 2u == 0u), 4u, GROUP8 % 4u == 0u);
// Whether a sum of products of integers needs the sum of x as well.
const HAS_ZERO: bool = ZERO != ZERO_IS_FIXED || ZERO_FIXED > 0u;

// Four bytes of codes8 as numbers: the integers of codes, the values of E4M3.
fn code_values(codes: u32) -> vec4<f32> {
    if CODE == CODE_E4M3 { return from_e4m3x4(unpack4xU8(codes)); }
    if CODE <= CODE_INT6 { return vec4<f32>(unpack4xU8(codes)); }
    return vec4<f32>(unpack4xI8(codes));
}

fn dequantise4(codes: u32, s: vec2<f32>) -> vec4<f32> {
    if ZERO == ZERO_IS_MIN { return code_values(codes) * s.x + s.y; }
    return (code_values(codes) - s.y) * s.x;
}

// Σ w x over channels with one scale: sum_vx = Σ v x, sum_x = Σ x.
fn scaled_sum(s: vec2<f32>, sum_vx: f32, sum_x: f32) -> f32 {
    if ZERO == ZERO_IS_MIN { return s.x * sum_vx + s.y * sum_x; }
    if HAS_ZERO { return s.x * (sum_vx - s.y * sum_x); }
    return s.x * sum_vx;
}

// Channels 8 k8 .. 8 k8 + 7 as numbers. Those beyond K are finite and meet zeros of x.
fn load_w8(row: u32, k8: u32) -> Vec8 {
    let q = codes8(row, k8);
    let s = scale_of(row, group_of(k8));
    return Vec8(dequantise4(q.x, s), dequantise4(q.y, s));
}

// Scales of a row of W for a loop over its blocks in order, LANES at a time, j < LANES: a word of scales is
// loaded when its first group comes up, a longer group when it begins, the second level where it may change.
// For CPUs, whose conversion keeps f16 below the normal ones; the self-test would notice if one did not.
const GROUP_BITS: u32 = (8u + 8u * u32(SCALE == SCALE_F16) + 24u * u32(SCALE == SCALE_F32)) * (1u + u32(ZERO != ZERO_IS_FIXED));
const BLOCK_BITS: u32 = GROUP_BITS * (1u + u32(HALVES));
// Whether groups are so short that a word serves whole blocks, none of them under two super-groups, and how many.
const WORDS: bool = (HALVES || GROUP8 == 4u) && BLOCK_BITS <= 32u && (SUPER_GROUPS * GROUP8) % 4u == 0u;
const WORD_BLOCKS: u32 = max(32u / BLOCK_BITS, 1u);
const GROUP_BLOCKS: u32 = max(GROUP8 / 4u, 1u);
const SUPER_BLOCKS: u32 = max(SUPER_GROUPS * GROUP8 / 4u, 1u);

struct RowScales { word: u32, factor: vec2<f32>, now: BlockScale }

// The factor of the second level, and of E2M1.
fn row_factor(row: u32, block: u32) -> vec2<f32> {
    let base = row * scale_stride();
    var f = vec2<f32>(1.0);
    var i = 0u;
    if SUPER_GROUPS > 0u { i = block / SUPER_BLOCKS; }
    if SUPER > 0u && ZERO == ZERO_IS_MIN {
        if SUPER == 1u {
            f = unpack2x16float(w_scales[base + i]);
        } else {
            f = vec2<f32>(bitcast<f32>(w_scales[base + 2u * i]), bitcast<f32>(w_scales[base + 2u * i + 1u]));
        }
    } else if SUPER == 1u {
        let pair = unpack2x16float(w_scales[base + i / 2u]);
        f.x = select(pair.x, pair.y, i % 2u == 1u);
    } else if SUPER == 2u {
        f.x = bitcast<f32>(w_scales[base + i]);
    }
    if CODE == CODE_E2M1 { f.x *= 0.5; }
    return f;
}

fn decode_scale(word: u32, i: u32) -> vec2<f32> {
    let v = word >> (GROUP_BITS * i);
    if ZERO == ZERO_IS_FIXED {
        if SCALE == SCALE_F32 { return vec2<f32>(bitcast<f32>(v), f32(ZERO_FIXED)); }
        if SCALE == SCALE_F16 { return vec2<f32>(unpack2x16float(v).x, f32(ZERO_FIXED)); }
        return vec2<f32>(from_byte(v & 255u), f32(ZERO_FIXED));
    }
    if SCALE == SCALE_F16 { return unpack2x16float(v); }
    return vec2<f32>(from_byte(v & 255u), from_byte((v >> 8u) & 255u));
}

// The state for block base + j from that for the block before.
fn next_scales(old: RowScales, row: u32, base: u32, j: u32) -> RowScales {
    var s = old;
    let block = base + j;
    if !WORDS {
        if GROUP8 == 0u {
            if block == 0u { s.now = block_scale(row, 0u); }
        } else if j == 0u || (LANES % GROUP_BLOCKS == 0u && j % GROUP_BLOCKS == 0u)
            || (LANES % GROUP_BLOCKS != 0u && GROUP_BLOCKS % LANES != 0u) {
            s.now = block_scale(row, block);
        }
        return s;
    }
    if SUPER == 0u || SUPER_GROUPS == 0u {
        if block == 0u { s.factor = row_factor(row, 0u); }
    } else if j == 0u || SUPER_BLOCKS % LANES != 0u {
        s.factor = row_factor(row, block);
    }
    let i = j % WORD_BLOCKS;
    if i == 0u { s.word = w_scales[row * scale_stride() + super_words() + block / WORD_BLOCKS]; }
    if HALVES {
        s.now = BlockScale(decode_scale(s.word, 2u * i), decode_scale(s.word, 2u * i + 1u));
        s.now.first.x *= s.factor.x;
        s.now.last.x *= s.factor.x;
        if ZERO == ZERO_IS_MIN {
            s.now.first.y *= s.factor.y;
            s.now.last.y *= s.factor.y;
        }
    } else {
        var v = decode_scale(s.word, i);
        v.x *= s.factor.x;
        if ZERO == ZERO_IS_MIN { v.y *= s.factor.y; }
        s.now = BlockScale(v, v);
    }
    return s;
}

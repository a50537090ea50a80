// Blocks of x in f32, quantised on the way: scale = max|v| / 127, a = round(v / scale), v = x or x · norm_weight. The
// factor of RMS normalisation is common to a row and goes behind the product. Blocks without a value have scale 1, blocks
// with an infinity or a NaN such a scale: magnitudes are compared as integers, where NaN is the largest.
// Whether K is a multiple of 32.
const WHOLE_BLOCKS: bool = true; //!spec
const RMS_NORM: bool = false; //!spec
// Below this, 127 / max|v| is out of range; such a block counts as zero.
const SMALLEST: f32 = 1e-30;
const SMALLEST_BITS: u32 = 0x0da24260u;
const MAGNITUDE: vec4<u32> = vec4<u32>(0x7fffffffu);
//!import matmul/x_vec4.wgsl
//!slot norm
fn load_norm_weight8(k8: u32) -> Vec8 { return Vec8(vec4<f32>(1.0), vec4<f32>(1.0)); }
//!end

fn x_block(row: u32, block: u32) -> XBlock {
    var v: array<Vec8, 4>;
    var largest = vec4<u32>(0u);
    var out: XBlock;
    for (var i = 0u; i < 4u; i++) { //!unroll
        let k8 = 4u * block + i;
        if WHOLE_BLOCKS || k8 < p.num_k8 {
            v[i] = load_x8(row, k8);
            if RMS_NORM {
                out.sum_sq += dot(v[i].lo, v[i].lo) + dot(v[i].hi, v[i].hi);
                let norm_w = load_norm_weight8(k8);
                v[i].lo *= norm_w.lo;
                v[i].hi *= norm_w.hi;
            }
            largest = max(largest, max(bitcast<vec4<u32>>(v[i].lo) & MAGNITUDE, bitcast<vec4<u32>>(v[i].hi) & MAGNITUDE));
        }
    } //!unroll
    let top_bits = max(max(largest.x, largest.y), max(largest.z, largest.w));
    let top = bitcast<f32>(top_bits);
    let counts = top_bits > SMALLEST_BITS;
    let inverse = select(0.0, 127.0 / max(top, SMALLEST), counts);
    out.scale = select(1.0, top / 127.0, counts);
    for (var i = 0u; i < 4u; i++) { //!unroll
        let lo = vec4<i32>(round(v[i].lo * inverse));
        let hi = vec4<i32>(round(v[i].hi * inverse));
        let both = lo + hi;
        out.sums[i / 2u] += both.x + both.y + both.z + both.w;
        out.lo[i] = pack4xI8(lo);
        out.hi[i] = pack4xI8(hi);
    } //!unroll
    return out;
}

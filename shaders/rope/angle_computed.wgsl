// (cos, sin) of a position's angle of pair i; the table holds (inv_freq, attention factor), [blocks, num_pairs].
// The angle is position · inv_freq rounded to f32, as elsewhere. Its turns are taken in fixed point (Payne & Hanek
// 1983): exact to 2^-31 turns up to 2^24, whatever the device's sin and cos do with large arguments.
@group(0) @binding(3) var<storage, read> table: array<vec2<f32>>;

fn cos_sin(position: u32, i: u32, block: u32) -> vec2<f32> {
    let entry = table[block * p.num_pairs + i];
    let angle = f32(position) * entry.x;
    var r = angle;
    var quadrant = 0u;
    if angle > 0.78 {
        let bits = bitcast<u32>(angle);
        let mantissa = (bits & 0x7fffffu) | 0x800000u;
        let shift = 150u - min(bits >> 23u, 150u);
        // 1 / (2 pi) = 0.28BE60DB 9391054A in base 2^32, shifted by the exponent.
        let high = 0x28be60dbu >> shift;
        let low = (0x9391054au >> shift) | ((0x28be60dbu << 1u) << (31u - shift));
        let m1 = mantissa >> 16u;
        let m0 = mantissa & 0xffffu;
        let carry = m1 * (low >> 16u) + ((m1 * (low & 0xffffu)) >> 16u) + ((m0 * (low >> 16u)) >> 16u);
        let turns = mantissa * high + carry;             // fraction of a turn, in 2^-32
        let nearest = (turns + 0x20000000u) >> 30u;
        quadrant = nearest & 3u;
        r = f32(bitcast<i32>(turns - (nearest << 30u))) * 1.4629180792671596e-9;
    }
    let z = r * r;
    let s = r + r * z * (-1.6666654611e-1 + z * (8.3321608736e-3 - z * 1.9515295891e-4));
    let c = 1.0 - 0.5 * z + z * z * (4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5));
    let odd = (quadrant & 1u) == 1u;
    let cosine = select(c, s, odd);
    let sine = select(s, c, odd);
    return entry.y * vec2<f32>(
        select(cosine, -cosine, quadrant == 1u || quadrant == 2u),
        select(sine, -sine, quadrant >= 2u));
}

fn cos_sin2(position: u32, i: u32, block: u32) -> vec4<f32> {
    return vec4<f32>(cos_sin(position, i, block), cos_sin(position, i + 1u, block));
}

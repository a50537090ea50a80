//! Small floating point formats: E2M1, E4M3, E5M2, E8M0 (OCP Microscaling Formats 1.0, OCP FP8).

/// Twice the magnitude of the E2M1 code `c & 7`; all are integers.
const E2M1_DOUBLED: [i32; 8] = [0, 1, 2, 3, 4, 6, 8, 12];

/// Twice the value of an E2M1 code (4 bits: sign, 2 exponent bits, 1 mantissa bit).
pub fn e2m1_doubled(code: u8) -> i32 {
    let magnitude = E2M1_DOUBLED[usize::from(code & 7)];
    if code & 8 == 0 { magnitude } else { -magnitude }
}

/// The E2M1 code nearest to `x`, ties to the even code, magnitudes over 6 become 6. Zero has the sign of `x`.
pub fn to_e2m1(x: f32) -> u8 {
    // Midpoints between neighbours; at an odd index the tie goes up, to the even code.
    const MIDPOINTS: [f32; 7] = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0];
    let a = x.abs();
    let up = |&(i, m): &(usize, f32)| if i % 2 == 1 { a >= m } else { a > m };
    let code = MIDPOINTS.into_iter().enumerate().take_while(up).count() as u8;
    code | if x.is_sign_negative() { 8 } else { 0 }
}

/// Value of an E4M3 (fn) code; `None` for the two NaN codes.
pub fn from_e4m3(code: u8) -> Option<f32> {
    let (e, m) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let magnitude = if e == 0 { m / 512.0 } else { (1.0 + m / 8.0) * 2f32.powi(e - 7) };
    (code & 0x7f != 0x7f).then_some(if code & 0x80 == 0 { magnitude } else { -magnitude })
}

/// The E4M3 code nearest to `x`, ties to even; magnitudes over 448 become 448. `x` is not NaN.
pub fn to_e4m3(x: f32) -> u8 {
    let a = x.abs().min(448.0);
    let code = if a < 2f32.powi(-6) {
        (a * 512.0).round_ties_even() as u32 // 8 is the first normal code
    } else {
        let b = a.to_bits();
        let b = b + 0x7_ffff + (b >> 20 & 1);
        (b >> 20) - (120 << 3)
    };
    code as u8 | if x.is_sign_negative() { 0x80 } else { 0 }
}

/// Value of an E5M2 code; `None` for NaN codes; the infinities are kept.
pub fn from_e5m2(code: u8) -> Option<f32> {
    let v = half::f16::from_bits(u16::from(code) << 8).to_f32();
    (!v.is_nan()).then_some(v)
}

/// `2^(code - 127)`; `None` for the NaN code 255. Code 0 gives a number below the normal ones of f32, which devices may
/// flush: kernels and [`unpack_row`](super::unpack_row) count it as zero.
pub fn from_e8m0(code: u8) -> Option<f32> {
    (code != 255).then(|| 2f64.powi(i32::from(code) - 127) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e2m1_table_and_ties() {
        let values: Vec<i32> = (0..16).map(e2m1_doubled).collect();
        assert_eq!(values, [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]);
        let ties =
            [(0.25, 0), (0.75, 2), (1.25, 2), (1.75, 4), (2.5, 4), (3.5, 6), (5.0, 6), (5.01, 7), (99.0, 7)];
        for (x, code) in ties {
            assert_eq!((to_e2m1(x), to_e2m1(-x)), (code, code | 8), "{x}");
        }
    }

    #[test]
    fn e4m3_round_trip() {
        for (code, want) in
            [(1, 0.001953125), (7, 0.013671875), (8, 0.015625), (0x30, 0.5), (0x3c, 1.5), (0x7e, 448.0)]
        {
            assert_eq!(from_e4m3(code), Some(want));
        }
        for code in (0..=255u8).filter(|c| c & 0x7f != 0x7f) {
            assert_eq!(to_e4m3(from_e4m3(code).expect("a number")), code);
        }
        assert_eq!((from_e4m3(0x7f), to_e4m3(1e9), to_e4m3(-1e9)), (None, 0x7e, 0xfe));
    }
}

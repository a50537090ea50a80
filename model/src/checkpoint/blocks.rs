//! Element types of GGUF files, and the exact way from their blocks to the layout that kernels read.
//!
//! Formulas of ggml's `dequantize_row_*`. Every quantised type here is `w = s (v - z)` or `w = s v + m` with scales
//! that a [`Format`] can hold as they are, so nothing is rounded on the way.

use girih_ops::kernels::quant::{Code, Format, Row, Scale, Super, SuperScale, Zero, pack_row};

/// Super-group of the k-quants.
const QK: usize = 256;
const SECOND: Option<Super> = Some(Super { group: 256, scale: SuperScale::F16 });

macro_rules! types {
    ($($variant:ident $id:literal $name:literal $elements:literal $bytes:literal,)*) => {
        /// Element type of a tensor in a GGUF file.
        #[allow(missing_docs)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum GgufType { $($variant,)* }

        impl GgufType {
            /// All types that are read.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Number in the file.
            pub fn id(self) -> u32 {
                match self { $(Self::$variant => $id,)* }
            }

            /// ggml's name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Elements of a block.
            pub fn block_elements(self) -> u64 {
                match self { $(Self::$variant => $elements,)* }
            }

            /// Bytes of a block.
            pub fn block_bytes(self) -> u64 {
                match self { $(Self::$variant => $bytes,)* }
            }
        }
    };
}

types! {
    F32 0 "F32" 1 4, F16 1 "F16" 1 2, Q4_0 2 "Q4_0" 32 18, Q4_1 3 "Q4_1" 32 20, Q5_0 6 "Q5_0" 32 22,
    Q5_1 7 "Q5_1" 32 24, Q8_0 8 "Q8_0" 32 34, Q2K 10 "Q2_K" 256 84, Q3K 11 "Q3_K" 256 110,
    Q4K 12 "Q4_K" 256 144, Q5K 13 "Q5_K" 256 176, Q6K 14 "Q6_K" 256 210, Iq4Nl 20 "IQ4_NL" 32 18,
    Iq4Xs 23 "IQ4_XS" 256 136, I8 24 "I8" 1 1, I16 25 "I16" 1 2, I32 26 "I32" 1 4, I64 27 "I64" 1 8,
    F64 28 "F64" 1 8, Bf16 30 "BF16" 1 2, Tq1_0 34 "TQ1_0" 256 54, Tq2_0 35 "TQ2_0" 256 66,
    Mxfp4 39 "MXFP4" 32 17, Nvfp4 40 "NVFP4" 64 36,
}

/// Types that exist and are not read, for messages.
const OTHERS: [(u32, &str); 14] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
];

/// A scale that is no finite number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BadScale {
    /// First element that it belongs to, counted from the first byte given.
    pub element: u64,
    /// Scale found.
    pub got: f32,
}

impl GgufType {
    /// The type of a number.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|t| t.id() == id)
    }

    /// What a message calls a number.
    pub(crate) fn describe(id: u32) -> String {
        let name = OTHERS.iter().find(|(other, _)| *other == id);
        name.map_or_else(|| id.to_string(), |(_, name)| format!("{id} ({name})"))
    }

    /// Bytes of `elements` elements; `None` where they are no whole number of blocks, or too many.
    pub fn bytes_of(self, elements: u64) -> Option<u64> {
        let whole = elements.is_multiple_of(self.block_elements());
        whole.then(|| (elements / self.block_elements()).checked_mul(self.block_bytes())).flatten()
    }

    /// How kernels read the type; `None` for plain types.
    pub fn format(self) -> Option<Format> {
        let grouped = |code, group, zero| Format { code, group, scale: Scale::I8, zero, second: SECOND };
        Some(match self {
            Self::Q4_0 => Format::Q4_0,
            Self::Q4_1 => Format::Q4_1,
            Self::Q5_0 => Format::Q5_0,
            Self::Q5_1 => Format::Q5_1,
            Self::Q8_0 => Format::Q8_0,
            Self::Q2K => grouped(Code::Int4, 16, Zero::Min),
            Self::Q3K => grouped(Code::Int4, 16, Zero::Fixed(4)),
            Self::Q4K => Format::Q4_K,
            Self::Q5K => Format::Q5_K,
            Self::Q6K => Format::Q6_K,
            Self::Iq4Nl => Format::IQ4_NL,
            Self::Iq4Xs => grouped(Code::Iq4Nl, 32, Zero::Fixed(0)),
            Self::Tq1_0 | Self::Tq2_0 => {
                Format { code: Code::Int4, group: 256, scale: Scale::F16, zero: Zero::Fixed(1), second: None }
            }
            Self::Mxfp4 => Format::MXFP4,
            Self::Nvfp4 => Format::NVFP4,
            _ => return None,
        })
    }

    /// One row of whole blocks in the form that all formats share, in place of what `row` held. `tensor_scale` is the
    /// factor that NVFP4 keeps in a tensor of its own (1 elsewhere). Bytes after the last whole block are ignored.
    ///
    /// # Errors
    /// A scale that is NaN or infinite. Plain types have no blocks: the row stays empty.
    pub fn read_row(self, bytes: &[u8], tensor_scale: f32, row: &mut Row) -> Result<(), BadScale> {
        for list in [&mut row.scales, &mut row.zeros, &mut row.supers, &mut row.super_mins] {
            list.clear();
        }
        row.codes.clear();
        if self == Self::Nvfp4 {
            row.supers.push(finite(tensor_scale, 0)?);
        }
        let blocks = bytes.chunks_exact(self.block_bytes() as usize);
        row.codes.reserve(blocks.len() * self.block_elements() as usize);
        for (i, b) in blocks.enumerate() {
            let at = i as u64 * self.block_elements();
            let half = |o: usize| finite(half::f16::from_le_bytes([b[o], b[o + 1]]).to_f32(), at);
            match self {
                Self::Q4_0 | Self::Iq4Nl => {
                    row.scales.push(half(0)?);
                    nibbles(&b[2..18], &mut row.codes);
                }
                Self::Q4_1 => {
                    row.scales.push(half(0)?);
                    row.zeros.push(half(2)?);
                    nibbles(&b[4..20], &mut row.codes);
                }
                Self::Q5_0 => {
                    row.scales.push(half(0)?);
                    nibbles(&b[6..22], &mut row.codes);
                    fifth_bits(&b[2..6], &mut row.codes);
                }
                Self::Q5_1 => {
                    row.scales.push(half(0)?);
                    row.zeros.push(half(2)?);
                    nibbles(&b[8..24], &mut row.codes);
                    fifth_bits(&b[4..8], &mut row.codes);
                }
                Self::Q8_0 => {
                    row.scales.push(half(0)?);
                    row.codes.extend_from_slice(&b[2..34]);
                }
                Self::Q2K => {
                    row.supers.push(half(80)?);
                    row.super_mins.push(-half(82)?);
                    row.scales.extend(b[..16].iter().map(|s| f32::from(s & 15)));
                    row.zeros.extend(b[..16].iter().map(|s| f32::from(s >> 4)));
                    pairs(&b[16..80], &mut row.codes);
                }
                Self::Q3K => {
                    row.supers.push(half(108)?);
                    let s = &b[96..108];
                    row.scales.extend((0..16).map(|i| {
                        let low = if i < 8 { s[i] & 15 } else { s[i - 8] >> 4 };
                        let high = s[8 + i % 4] >> (2 * (i / 4)) & 3;
                        f32::from(low | high << 4) - 32.0
                    }));
                    let first = row.codes.len();
                    pairs(&b[32..96], &mut row.codes);
                    for (part, codes) in row.codes[first..].chunks_exact_mut(32).enumerate() {
                        for (code, h) in codes.iter_mut().zip(&b[..32]) {
                            *code |= (h >> part & 1) << 2;
                        }
                    }
                }
                Self::Q4K | Self::Q5K => {
                    row.supers.push(half(0)?);
                    row.super_mins.push(-half(2)?);
                    let s = &b[4..16];
                    let of = |j: usize| match j {
                        0..4 => (s[j] & 63, s[j + 4] & 63),
                        _ => (s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4),
                    };
                    row.scales.extend((0..8).map(|j| f32::from(of(j).0)));
                    row.zeros.extend((0..8).map(|j| f32::from(of(j).1)));
                    let first = row.codes.len();
                    let five = self == Self::Q5K;
                    for part in b[if five { 48 } else { 16 }..].chunks_exact(32) {
                        row.codes.extend(part.iter().map(|v| v & 15));
                        row.codes.extend(part.iter().map(|v| v >> 4));
                    }
                    if five {
                        for (j, codes) in row.codes[first..].chunks_exact_mut(32).enumerate() {
                            for (code, h) in codes.iter_mut().zip(&b[16..48]) {
                                *code |= (h >> j & 1) << 4;
                            }
                        }
                    }
                }
                Self::Q6K => {
                    row.supers.push(half(208)?);
                    row.scales.extend(b[192..208].iter().map(|&s| f32::from(s as i8)));
                    for (low, high) in b[..128].chunks_exact(64).zip(b[128..192].chunks_exact(32)) {
                        let (first, second) = low.split_at(32);
                        for (part, from) in [first, second, first, second].into_iter().enumerate() {
                            let shift = if part < 2 { 0 } else { 4 };
                            let code = |(l, h): (&u8, &u8)| l >> shift & 15 | (h >> (2 * part) & 3) << 4;
                            row.codes.extend(from.iter().zip(high).map(code));
                        }
                    }
                }
                Self::Iq4Xs => {
                    row.supers.push(half(0)?);
                    let high = u16::from_le_bytes([b[2], b[3]]);
                    row.scales.extend((0..8usize).map(|i| {
                        let low = b[4 + i / 2] >> (4 * (i % 2)) & 15;
                        f32::from(low | ((high >> (2 * i) & 3) as u8) << 4) - 32.0
                    }));
                    b[8..136].chunks_exact(16).for_each(|part| nibbles(part, &mut row.codes));
                }
                Self::Tq1_0 => {
                    row.scales.push(half(52)?);
                    let digit = |v: u8, n: usize| {
                        const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
                        ((u16::from(v.wrapping_mul(POWERS[n])) * 3) >> 8) as u8
                    };
                    for (part, digits) in [(&b[..32], 5), (&b[32..48], 5), (&b[48..52], 4)] {
                        for n in 0..digits {
                            row.codes.extend(part.iter().map(|&v| digit(v, n)));
                        }
                    }
                }
                Self::Tq2_0 => {
                    row.scales.push(half(64)?);
                    pairs(&b[..64], &mut row.codes);
                }
                Self::Mxfp4 => {
                    let scale = girih_ops::kernels::quant::float::from_e8m0(b[0]).unwrap_or(f32::NAN);
                    row.scales.push(finite(scale, at)?);
                    nibbles(&b[1..17], &mut row.codes);
                }
                Self::Nvfp4 => {
                    for &s in &b[..4] {
                        let scale = girih_ops::kernels::quant::float::from_e4m3(s & 0x7f).unwrap_or(f32::NAN);
                        row.scales.push(finite(scale, at)?);
                    }
                    for part in b[4..36].chunks_exact(8) {
                        row.codes.extend(part.iter().map(|v| v & 15));
                        row.codes.extend(part.iter().map(|v| v >> 4));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Appends rows of `k` channels to the words that kernels read: [`Format::code_words`] and
    /// [`Format::scale_words`] for each. `tensor_scale` as in [`GgufType::read_row`].
    ///
    /// # Errors
    /// A scale that is NaN or infinite. Plain types and rows that are no whole blocks append nothing.
    pub fn pack_rows(
        self,
        k: u32,
        bytes: &[u8],
        tensor_scale: f32,
        codes: &mut Vec<u32>,
        scales: &mut Vec<u32>,
    ) -> Result<(), BadScale> {
        self.each_row(k, bytes, tensor_scale, |format, row| pack_row(format, row, codes, scales))
    }

    /// The values of rows of `k` channels, computed in f64.
    ///
    /// # Errors
    /// As [`GgufType::pack_rows`].
    pub fn decode(self, k: u32, bytes: &[u8], tensor_scale: f32) -> Result<Vec<f32>, BadScale> {
        let mut out = Vec::new();
        self.each_row(k, bytes, tensor_scale, |format, row| {
            out.extend(row.values(format).into_iter().map(|v| v as f32));
        })?;
        Ok(out)
    }

    fn each_row(
        self,
        k: u32,
        bytes: &[u8],
        tensor_scale: f32,
        mut visit: impl FnMut(Format, &Row),
    ) -> Result<(), BadScale> {
        let row_bytes = self.bytes_of(k.into()).filter(|&b| b > 0);
        let (Some(format), Some(row_bytes)) = (self.format(), row_bytes) else { return Ok(()) };
        let mut row = Row::default();
        for (i, bytes) in bytes.chunks_exact(row_bytes as usize).enumerate() {
            let at = i as u64 * u64::from(k);
            self.read_row(bytes, tensor_scale, &mut row)
                .map_err(|bad| BadScale { element: at + bad.element, ..bad })?;
            visit(format, &row);
        }
        Ok(())
    }
}

fn finite(got: f32, element: u64) -> Result<f32, BadScale> {
    if got.is_finite() { Ok(got) } else { Err(BadScale { element, got }) }
}

/// 16 bytes: the low halves, then the high halves.
fn nibbles(bytes: &[u8], codes: &mut Vec<u8>) {
    codes.extend(bytes.iter().map(|v| v & 15));
    codes.extend(bytes.iter().map(|v| v >> 4));
}

/// Adds bit i of 4 bytes to the i-th of the last 32 codes.
fn fifth_bits(bytes: &[u8], codes: &mut [u8]) {
    let bits = bytes.try_into().map_or(0, u32::from_le_bytes);
    let first = codes.len() - 32;
    for (i, code) in codes[first..].iter_mut().enumerate() {
        *code |= (bits >> i & 1) as u8 * 16;
    }
}

/// 64 bytes, in halves: their lowest two bits, then the next two and so on.
fn pairs(bytes: &[u8], codes: &mut Vec<u8>) {
    debug_assert_eq!(bytes.len() * 4, QK);
    for half in bytes.chunks_exact(32) {
        for shift in [0, 2, 4, 6] {
            codes.extend(half.iter().map(|v| v >> shift & 3));
        }
    }
}

#[cfg(test)]
mod tests {
    use girih_ops::kernels::quant::unpack_row;

    use super::*;
    use crate::checkpoint::table::StoredType;

    /// Block bytes (37 i + 11) % 256 with some overwritten; values by the reference implementation:
    /// y0..y3, y[n/2], y[n-1], sum, sum of (i + 1) y_i.
    #[test]
    fn blocks_decode_as_in_the_reference() {
        type Case = (GgufType, usize, &'static [u8], [f64; 8]);
        let d = &[0x00, 0x2c][..];
        let (dm, dmin) = (&[0x00, 0x2c, 0x00, 0xb8][..], &[0x00, 0x2c, 0x00, 0x30][..]);
        let cases: [Case; 14] = [
            (GgufType::Q4_0, 0, d, [-0.1875, 0.125, 0.4375, -0.25, -0.1875, 0.0, -1.3125, -32.375]),
            (GgufType::Q4_1, 0, dm, [0.4375, -0.25, 0.0625, 0.375, 0.0625, 0.25, -0.6875, -15.0625]),
            (GgufType::Q5_0, 0, d, [0.5625, -0.125, 0.1875, -0.5, 0.875, 0.0625, 0.9375, 7.0]),
            (GgufType::Q5_1, 0, dm, [0.6875, 1.0, 1.3125, 0.625, 0.6875, -0.1875, 15.5625, 229.8125]),
            (GgufType::Q8_0, 0, d, [5.3125, 7.625, -6.0625, -3.75, -5.6875, -3.0, -11.0, -505.0]),
            (GgufType::Q2K, 80, dmin, [2.0625, 0.0, 0.6875, 1.375, 0.1875, 0.0, -28.8125, -6495.125]),
            (GgufType::Q3K, 108, d, [5.0625, -6.75, 1.6875, -3.375, 0.125, 2.625, 59.875, 11071.5625]),
            (GgufType::Q4K, 0, dmin, [14.9375, -6.375, 3.3125, 13.0, 25.3125, -0.25, 2610.5, 384_106.5]),
            (GgufType::Q5K, 0, dmin, [45.9375, -6.375, 34.3125, 13.0, 64.3125, 3.5, 6471.5, 912_519.5]),
            (GgufType::Q6K, 208, d, [-89.4375, 106.0, 36.4375, -33.125, -21.9375, -3.75, 288.25, 49026.25]),
            (GgufType::Iq4Nl, 0, d, [-2.1875, 1.5625, 7.0625, -3.0625, -2.1875, 0.0625, -16.0625, -432.4375]),
            (
                GgufType::Iq4Xs,
                0,
                d,
                [4.0625, -0.0625, -4.3125, 5.1875, -36.5625, -1.0, -687.8125, -130_695.875],
            ),
            (GgufType::Mxfp4, 0, &[0x7d], [0.0, 0.75, -0.25, -1.5, 0.375, 0.75, 3.125, 79.75]),
            (
                GgufType::Nvfp4,
                0,
                &[0x38, 0x30, 0x41, 0x05],
                [-6.0, 2.0, -0.5, -4.0, -13.5, 0.004_882_812_5, -41.696_289_1, -1_471.520_51],
            ),
        ];
        for (ty, at, over, want) in cases {
            let n = ty.block_elements() as usize;
            let mut block: Vec<u8> = (0..ty.block_bytes()).map(|i| (37 * i + 11) as u8).collect();
            block[at..at + over.len()].copy_from_slice(over);
            let mut row = Row::default();
            ty.read_row(&block, 1.0, &mut row).expect("finite scales");
            let format = ty.format().expect("quantised");
            let y = row.values(format);
            let sum: f64 = y.iter().sum();
            let weighted: f64 = (1..).zip(&y).map(|(i, v)| f64::from(i) * v).sum();
            let got = [y[0], y[1], y[2], y[3], y[n / 2], y[n - 1], sum, weighted];
            for (g, w) in got.into_iter().zip(want) {
                assert!((g - w).abs() <= 1e-5 * w.abs().max(1e-3), "{}: {got:?}, want {want:?}", ty.name());
            }
            let (mut codes, mut scales) = (Vec::new(), Vec::new());
            ty.pack_rows(n as u32, &block, 1.0, &mut codes, &mut scales).expect("finite scales");
            assert_eq!(unpack_row(format, n as u32, &codes, &scales), row, "{}", ty.name());
            format.check().expect("a format that exists");
        }
    }

    #[test]
    fn ternary_blocks() {
        // All digits 0, 1 and 2: bytes ceil(digits * 256 / 243) as the reference packs them.
        for (digit, byte) in [(0u8, 0u8), (1, 128), (2, 255)] {
            let mut block = vec![byte; 54];
            block[52..].copy_from_slice(&[0x00, 0x3c]);
            let mut row = Row::default();
            GgufType::Tq1_0.read_row(&block, 1.0, &mut row).expect("finite");
            assert_eq!(row.codes, [digit; 256]);
            let mut block = vec![digit * 0x55; 66];
            block[64..].copy_from_slice(&[0x00, 0x3c]);
            GgufType::Tq2_0.read_row(&block, 1.0, &mut row).expect("finite");
            assert_eq!((row.codes.as_slice(), row.scales.as_slice()), (&[digit; 256][..], &[1.0][..]));
        }
    }

    #[test]
    fn scales_that_are_no_numbers() {
        let mut bytes = vec![0; 3 * 2 * 18];
        bytes[3 * 18 + 1] = 0x7e; // second row, second block
        let bad = GgufType::Q4_0.decode(64, &bytes, 1.0).expect_err("NaN");
        assert!(bad.element == 96 && bad.got.is_nan(), "{bad:?}");
        assert!(GgufType::Mxfp4.decode(32, &[255; 17], 1.0).is_err());
        assert!(GgufType::Nvfp4.decode(64, &[0; 36], f32::INFINITY).is_err());
    }

    #[test]
    fn numbers_and_sizes() {
        for &ty in GgufType::ALL {
            assert_eq!(GgufType::from_id(ty.id()), Some(ty));
            let dense = !matches!(StoredType::from(ty), StoredType::Gguf(_));
            assert_eq!(ty.format().is_none(), dense, "{}", ty.name());
            assert_eq!(ty.bytes_of(2 * ty.block_elements()), Some(2 * ty.block_bytes()));
        }
        assert_eq!((GgufType::from_id(16), GgufType::Q4_0.bytes_of(33)), (None, None));
        assert_eq!(GgufType::F32.bytes_of(u64::MAX), None);
    }
}

//! What products of integers share: parts of W, their checks, the activations of tests, twins in exact integers.

use girih_shaders::Selection;

use super::product::{Part, Shape};
use crate::buffer::Buffer;
use crate::case::hash;
use crate::device::Gpu;
use crate::error::KernelError;
use crate::quant::{Code, Format, Row, Scale, SuperScale, WeightFormat, Zero, float, pack_row, unpack_row};
use crate::rows;

/// Channels of a block of x.
pub(super) const BLOCK: u32 = 32;

/// Whether integer kernels can read weights of a format: codes that are integers, groups of 16, of a multiple of 32
/// or of the row.
pub fn is_integer(format: Format) -> bool {
    format.code != Code::E4m3 && (format.group == 16 || format.group.is_multiple_of(BLOCK))
}

impl Part<'_> {
    /// The format of integers and its scales. Checks sizes.
    pub(super) fn integers(
        &self,
        kernel: &'static str,
        gpu: &Gpu,
        k: u32,
    ) -> Result<(Format, Buffer), KernelError> {
        let bad =
            |field, got: u32, must_be| Err(KernelError::BadParam { kernel, field, got: got.into(), must_be });
        let WeightFormat::Quant(format) = self.format else {
            let bits = 8 * self.format.row_bytes(8) / 8;
            return bad("bits of the weights", bits as u32, "those of an integer code");
        };
        if format.code == Code::E4m3 {
            let must_be = "an integer code: E4M3 needs float activations";
            return bad("code of the weights", format.code as u32, must_be);
        }
        if !is_integer(format) {
            return bad("group of the weights", format.group, "16, a multiple of 32, or the row");
        }
        Ok((format, self.scales(kernel, gpu, k)?))
    }
}

/// A row of x as integers: codes and the scale of each block of 32.
pub(super) struct XRow {
    pub codes: Vec<i64>,
    pub scales: Vec<f64>,
}

impl XRow {
    /// Row `row` of the buffers `x` and `x_scales`.
    pub fn read(codes: &[i8], scales: &[[u32; 2]], row: usize, k: usize) -> Self {
        let blocks = k.div_ceil(BLOCK as usize);
        let start = row * blocks;
        let codes = codes[start * BLOCK as usize..].iter().take(k).map(|&c| c.into()).collect();
        let scales = scales[start..start + blocks].iter().map(|s| f32::from_bits(s[0]).into()).collect();
        Self { codes, scales }
    }

    /// The same with zeros for all channels but these.
    pub fn only(&self, channels: std::ops::Range<usize>) -> Self {
        let code = |(i, &code): (usize, &i64)| if channels.contains(&i) { code } else { 0 };
        Self { codes: self.codes.iter().enumerate().map(code).collect(), scales: self.scales.clone() }
    }

    /// `scale = max|v| / 127, a = round(v / scale)` in blocks of 32.
    pub fn quantise(v: &[f64]) -> Self {
        let mut row = Self { codes: Vec::new(), scales: Vec::new() };
        for block in v.chunks(BLOCK as usize) {
            let largest = block.iter().fold(0.0, |max: f64, v| max.max(v.abs()));
            let counts = largest > 1e-30;
            row.scales.push(if counts { largest / 127.0 } else { 1.0 });
            let code = |&v: &f64| if counts { (v / largest * 127.0).round_ties_even() as i64 } else { 0 };
            row.codes.extend(block.iter().map(code));
        }
        row
    }
}

/// Every row of W by its definition.
pub(super) struct Weights {
    rows: Vec<Row>,
    format: Format,
}

impl Weights {
    pub fn read(selection: &Selection, codes: &[u32], scales: &[u32], n: usize, k: u32) -> Self {
        let format = Format::of(selection).unwrap_or(Format::Q4_0);
        let (cw, sw) = (format.code_words(k) as usize, format.scale_words(k) as usize);
        let row =
            |r: usize| unpack_row(format, k, &codes[r * cw..(r + 1) * cw], &scales[r * sw..(r + 1) * sw]);
        Self { rows: (0..n).map(row).collect(), format }
    }

    /// `Σ_k w x` of every row, exact integers within a group of W and a block of x.
    pub fn products(&self, x: &XRow) -> Vec<f64> {
        self.products_of(0..self.rows.len(), x)
    }

    /// The same of some rows.
    pub fn products_of(&self, rows: std::ops::Range<usize>, x: &XRow) -> Vec<f64> {
        self.rows[rows].iter().map(|row| self.product(row, x)).collect()
    }

    fn product(&self, row: &Row, x: &XRow) -> f64 {
        let format = self.format;
        let step = if format.group == 16 { 16 } else { BLOCK as usize };
        let at = |group: u32, i: usize| if group == Format::ROW { 0 } else { i / group as usize };
        let mut total = 0.0;
        for (i, (q, a)) in row.codes.chunks(step).zip(x.codes.chunks(step)).enumerate() {
            let channel = i * step;
            let int = |c: u8| i64::from(format.code.int(c).unwrap_or(0));
            let dot: i64 = q.iter().zip(a).map(|(&q, &a)| int(q) * a).sum();
            let sum: i64 = a.iter().sum();
            let (dot, sum) = (dot as f64 * format.code.unit(), sum as f64);
            let group = at(format.group, channel);
            let second = format.second.map(|s| at(s.group, channel));
            let scale = f64::from(row.scales[group]) * second.map_or(1.0, |s| f64::from(row.supers[s]));
            total += x.scales[channel / BLOCK as usize]
                * match format.zero {
                    Zero::Fixed(z) => scale * (dot - f64::from(z) * sum),
                    Zero::Point => scale * (dot - f64::from(row.zeros[group]) * sum),
                    Zero::Min => {
                        let factor = second.map_or(1.0, |s| f64::from(row.super_mins[s]));
                        scale * dot + f64::from(row.zeros[group]) * factor * sum
                    }
                };
        }
        total
    }
}

/// A number of 0 .. n from a seed and an index.
fn pick(seed: u32, i: u32, n: u32) -> u32 {
    (hash(i.wrapping_add(seed.wrapping_mul(0x9e37_79b9))) >> 8) % n
}

/// Seeded weights `[N, K]` of a format: code words and scale words. Codes are uniform; scales vary by a factor of
/// four and are such that sums of K products with x of order 1 are of order 1. Those of row 1 in f16 lie below the
/// normal numbers.
pub(super) fn seeded_weights(n: u32, k: u32, format: Format, seed: u32) -> (Vec<u32>, Vec<u32>) {
    // Standard deviation of a uniform code, about.
    let spread = match format.code {
        Code::Int4 => 4.6,
        Code::Int5 => 9.2,
        Code::Int6 => 18.0,
        Code::Int8 => 74.0,
        Code::Iq4Nl => 65.0,
        Code::E2m1 | Code::E4m3 => 3.0,
    };
    let unit = 1.0 / (spread * (k as f32).sqrt());
    let center = if matches!(format.code, Code::Int4 | Code::Int5 | Code::Int6) {
        (1u32 << (format.code.bits() - 1)) as f32
    } else {
        0.0
    };
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for row in 0..n {
        let at = |i: u32, n: u32| pick(seed, row.wrapping_mul(0x0101_0101).wrapping_add(i), n);
        let groups = format.groups(k);
        let jitter = |i: u32| (at(i + 7777, 1000) as f32 / 999.0 - 0.5) * 2.0; // -1 .. 1
        let factor = |i: u32| 2f32.powf(jitter(i));
        // With a second level, scales are numbers of their own type and the second level holds the rest.
        let (level1, level2) = match (format.scale, format.second) {
            (_, None) => (unit, 1.0),
            (Scale::I8, _) => (24.0, unit / 24.0),
            (Scale::E4m3, _) => (4.0, unit / 4.0),
            _ => (1.0, unit),
        };
        let round = |v: f32| match format.scale {
            Scale::F32 => v,
            Scale::F16 => half::f16::from_f32(v).to_f32(),
            Scale::E8m0 => 2f32.powi(v.log2().round() as i32),
            Scale::E4m3 => float::from_e4m3(float::to_e4m3(v)).unwrap_or(0.0),
            Scale::I8 => v.round().clamp(-128.0, 127.0),
        };
        let round2 = |v: f32| match format.second {
            Some(s) if s.scale == SuperScale::F16 => half::f16::from_f32(v).to_f32(),
            _ => v,
        };
        // 2^-17 .. 2^-15 with the factor.
        let small = 2f32.powi(-16);
        let level1 = if row == 1 && format.scale == Scale::F16 { small } else { level1 };
        let level2 = match format.second {
            Some(s) if row == 1 && s.scale == SuperScale::F16 => small,
            _ => level2,
        };
        let group_scales: Vec<f32> = (0..groups).map(|g| round(level1 * factor(g))).collect();
        let zeros = match format.zero {
            Zero::Fixed(_) => Vec::new(),
            // Zero points are whole numbers around the middle.
            Zero::Point => (0..groups).map(|g| round((center + 2.0 * jitter(g + 99)).round())).collect(),
            Zero::Min => group_scales
                .iter()
                .map(|&s| round(-s * if format.second.is_some() { 1.0 } else { center }))
                .collect(),
        };
        let supers: Vec<f32> =
            (0..format.super_groups(k)).map(|s| round2(level2 * factor(s + 555))).collect();
        let super_mins = if format.zero == Zero::Min && format.second.is_some() {
            supers.iter().map(|&s| round2(s * center)).collect()
        } else {
            Vec::new()
        };
        let row_codes = (0..k).map(|i| at(i + 100_000, 1 << format.code.bits()) as u8).collect();
        let row = Row { codes: row_codes, scales: group_scales, zeros, supers, super_mins };
        pack_row(format, &row, &mut codes, &mut scales);
    }
    (codes, scales)
}

/// Activations `[M, K]` that quantise without doubt: products with `divisor` are, up to rounding, whole numbers plus
/// at most 0.3, times the scale of their block, of which one element is 127 steps. So rounding errors of f32 change no
/// code and a twin in f64 finds the same ones.
pub(super) fn seeded_x(m: u32, k: u32, divisor: Option<&[f32]>, seed: u32) -> Vec<f32> {
    let mut x = Vec::new();
    for i in 0..m * k {
        let (row, channel) = (i / k, i % k);
        let block = row * k.div_ceil(BLOCK) + channel / BLOCK;
        let width = BLOCK.min(k - channel / BLOCK * BLOCK);
        // One block in 7 is zero; its scale counts as 1.
        let step = if pick(seed + 1, block, 7) == 6 {
            0.0
        } else {
            2f32.powf(pick(seed + 2, block, 1000) as f32 / 250.0 - 7.0)
        };
        let code = if channel % BLOCK == pick(seed + 3, block, width) {
            if pick(seed + 4, block, 2) == 0 { 127.0 } else { -127.0 }
        } else {
            pick(seed + 5, i, 253) as f32 - 126.0 + (pick(seed + 6, i, 1000) as f32 / 999.0 - 0.5) * 0.6
        };
        x.push(code * step / divisor.map_or(1.0, |d| d[channel as usize]));
    }
    x
}

/// Quantised activations `[M, K]`: bytes with padding, and `(scale, sums)` of blocks. One scale for each row if `token`.
pub(super) fn seeded_codes(m: u32, k: u32, token: bool, seed: u32) -> (Vec<i8>, Vec<[u32; 2]>) {
    let blocks = k.div_ceil(BLOCK);
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for block in 0..m * blocks {
        let (row, b) = (block / blocks, block % blocks);
        let codes_of_block: Vec<i8> =
            (0..BLOCK)
                .map(|i| {
                    if b * BLOCK + i < k {
                        (pick(seed, block * BLOCK + i, 256) as i32 - 128) as i8
                    } else {
                        0
                    }
                })
                .collect();
        let sum = |half: &[i8]| half.iter().map(|&c| i32::from(c)).sum::<i32>() as u32 & 0xffff;
        let (first, last) = codes_of_block.split_at(16);
        let scale = 2f32.powf(pick(seed + 2, if token { row } else { block }, 1000) as f32 / 500.0 - 7.0);
        scales.push([scale.to_bits(), sum(first) | sum(last) << 16]);
        codes.extend(codes_of_block);
    }
    (codes, scales)
}

/// Formats of every kind of code, scale and zero.
pub(super) const FORMATS: [Format; 12] = [
    Format::Q4_0,
    Format::Q4_1,
    Format::Q4_K,
    Format::Q5_K,
    Format::Q6_K,
    Format::Q8_0,
    Format::IQ4_NL,
    Format::MXFP4,
    Format::NVFP4,
    Format::QOQ,
    Format { scale: Scale::F32, ..Format::asymmetric(Code::Int4, Format::ROW) },
    Format::asymmetric(Code::Int4, 96),
];

/// Checks the sizes of quantised activations.
pub(super) fn check_codes(
    kernel: &'static str,
    codes: &Buffer,
    scales: &Buffer,
    shape: Shape,
) -> Result<(), KernelError> {
    let bytes = |each| rows::product([each, shape.m.into(), shape.num_blocks().into()]);
    rows::check_sizes(kernel, [("x", Some(codes), bytes(32)), ("x_scales", Some(scales), bytes(8))])?;
    Ok(())
}

/// Seeded weights and their scales as bytes.
pub(super) fn bench_bytes(n: u32, k: u32, format: Format) -> [Vec<u8>; 2] {
    let (codes, scales) = seeded_weights(n, k, format, 2);
    [codes, scales].map(|words| bytemuck::cast_slice(&words).to_vec())
}

/// Weights for timing: eight seeded rows over and over.
pub(super) fn bench_weights(n: u32, k: u32, format: Format) -> (Vec<u32>, Vec<u32>) {
    let (codes, scales) = seeded_weights(8, k, format, 2);
    let repeat = |words: &[u32]| words.iter().copied().cycle().take(words.len() / 8 * n as usize).collect();
    (repeat(&codes), repeat(&scales))
}

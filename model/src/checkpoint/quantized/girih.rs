//! girih's own layout, version 1: `X.weight_codes` and `X.weight_scales` are the words that kernels read;
//! `X.input_scale`, `X.input_p1` and `X.input_p2` are what x is multiplied with.

use girih_ops::kernels::quant::{
    Code, Format, QuantActivation, Scale, SuperScale, Zero, hadamard, unpack_row,
};

use super::{
    ChannelMix, Codes, InputTransform, QuantModule, WORDS, expect_shape, found, matrix_shape, tensor,
};
use crate::LoadError;
use crate::checkpoint::tensors::TensorScope;

/// Largest order of a factor of a Kronecker transform: what workgroups of 256 invocations can multiply.
const MAX_KRONECKER: u32 = 2048;

/// Columns that the tensors tell: those of the transforms of x. Rows of words are padded and do not.
pub(super) fn columns(w: &TensorScope) -> Option<u32> {
    let side = |name: &str| u32::try_from(*w.info(name)?.shape.first()?).ok();
    side("input_scale").or_else(|| side("input_p1")?.checked_mul(side("input_p2")?))
}

/// The most columns with which rows have this many words.
fn padded_columns(format: Format, [codes, scales]: [u32; 2]) -> u32 {
    // Longer rows than that do not fit any buffer.
    let end = (codes / format.code.bits()).min(1 << 23) * 32;
    let fits = |k: &u32| format.scale_words(*k) == scales;
    (end.saturating_sub(31).max(1)..=end).rev().find(fits).unwrap_or(end)
}

/// `k`: the columns where they are known. Where neither the caller nor the tensors tell, the module has the most that
/// fit its words, and what depends on their number is not checked.
pub(super) async fn open(
    w: &TensorScope,
    k: Option<u32>,
    format: Format,
    activation: QuantActivation,
    hadamard: Option<u32>,
) -> Result<QuantModule, LoadError> {
    let codes = tensor(w, "weight_codes", &WORDS)?;
    let scales = tensor(w, "weight_scales", &WORDS)?;
    let [n, width] = matrix_shape(&codes)?;
    let known = k.or_else(|| columns(w));
    let k = match known {
        Some(k) => k,
        None => padded_columns(format, [width, matrix_shape(&scales)?[1]]),
    };
    if k > 1 << 28 {
        return Err(found(w, "weight_codes", format!("for {k} columns"), "for at most 2^28"));
    }
    expect_shape(&codes, &[n, format.code_words(k)])?;
    expect_shape(&scales, &[n, format.scale_words(k)])?;
    let scale = if w.has_tensor("input_scale") { Some(w.f32("input_scale", &[k]).await?) } else { None };
    let kronecker = w.has_tensor("input_p1") || w.has_tensor("input_p2");
    let mix = match hadamard {
        Some(_) if kronecker => {
            return Err(found(w, "input_p1", "beside a Hadamard transform", "the only mixing of channels"));
        }
        Some(block) => {
            if known.is_some() {
                check_hadamard(w, k, block)?;
            }
            ChannelMix::Hadamard { block }
        }
        None if kronecker => {
            let [n1, _] = matrix_shape(&tensor(w, "input_p1", &super::FLOATS)?)?;
            let [n2, _] = matrix_shape(&tensor(w, "input_p2", &super::FLOATS)?)?;
            for (name, order) in [("input_p1", n1), ("input_p2", n2)] {
                if order > MAX_KRONECKER {
                    let (got, want) = (format!("of order {order}"), format!("of at most {MAX_KRONECKER}"));
                    return Err(found(w, name, got, want));
                }
            }
            if u64::from(n1) * u64::from(n2) != u64::from(k) {
                let want = format!("square matrices with {k} channels together");
                return Err(found(w, "input_p1", format!("for {n1} x {n2} channels"), want));
            }
            let p1 = w.f32("input_p1", &[n1, n1]).await?;
            let p2 = w.f32("input_p2", &[n2, n2]).await?;
            ChannelMix::Kronecker { p1: (n1, p1), p2: (n2, p2) }
        }
        None => ChannelMix::None,
    };
    let codes = Codes::Words { codes, scales };
    Ok(QuantModule { n, k, format, activation, input: InputTransform { scale, mix }, codes })
}

/// Whether `k` channels can be mixed in runs of `block`.
fn check_hadamard(w: &TensorScope, k: u32, block: u32) -> Result<(), LoadError> {
    let size = if block == 0 { k } else { block };
    if !k.is_multiple_of(size) {
        let got = format!("rotated in blocks of {block} channels");
        return Err(found(w, "weight_codes", got, format!("in blocks of a divisor of its {k} columns")));
    }
    if hadamard::plan(size).is_none() {
        let got = format!("rotated by a Hadamard matrix of order {size}");
        let want =
            "of an order that has a construction (powers of two, products of one with 12, 20, 28 and so on)";
        return Err(found(w, "weight_codes", got, want));
    }
    Ok(())
}

/// Refuses words that stand for no number.
pub(super) fn check(
    module: &QuantModule,
    [codes_name, scales_name]: [&str; 2],
    first: u32,
    codes: &[u32],
    scales: &[u32],
) -> Result<(), LoadError> {
    let (format, k) = (module.format, module.k);
    let (c, s) = (format.code_words(k) as usize, format.scale_words(k) as usize);
    let bad = |tensor: &str, i: usize, word: u32| LoadError::Element {
        tensor: tensor.to_owned(),
        index: u64::from(first) * (if tensor == scales_name { s } else { c }) as u64 + i as u64,
        got: format!("{word:#010x}"),
        want: "free of codes of NaN and infinity".into(),
    };
    let nan = |v: u8| v & 0x7f == 0x7f;
    if format.code == Code::E4m3
        && let Some(i) = codes.iter().position(|w| w.to_le_bytes().into_iter().any(nan))
    {
        return Err(bad(codes_name, i, codes[i]));
    }
    let supers = format.super_words(k) as usize;
    let second = format.second.map(|s| if s.scale == SuperScale::F32 { Scale::F32 } else { Scale::F16 });
    for (i, &word) in scales.iter().enumerate() {
        let scale = if i % s.max(1) < supers { second } else { Some(format.scale) };
        let [low, high] = [word & 0xffff, word >> 16];
        let broken = match scale {
            Some(Scale::F32) => !f32::from_bits(word).is_finite(),
            Some(Scale::F16) => [low, high].into_iter().any(|h| h & 0x7c00 == 0x7c00),
            Some(Scale::E4m3) => word.to_le_bytes().into_iter().any(nan),
            Some(Scale::E8m0) => word.to_le_bytes().contains(&0xff),
            Some(Scale::I8) | None => false,
        };
        if broken {
            return Err(bad(scales_name, i, word));
        }
    }
    if format.second.is_some_and(|second| second.group == Format::ROW) {
        for (row, (c, s)) in codes.chunks_exact(c.max(1)).zip(scales.chunks_exact(s.max(1))).enumerate() {
            if lost(format, k, c, s) {
                return Err(LoadError::Element {
                    tensor: scales_name.to_owned(),
                    index: u64::from(first + row as u32) * s.len() as u64,
                    got: "0".into(),
                    want: "a scale of a row other than 0: its codes are not zeros".into(),
                });
            }
        }
    }
    Ok(())
}

/// Whether the scale of the whole row is 0 although its codes are not those of zeros.
fn lost(format: Format, k: u32, codes: &[u32], scales: &[u32]) -> bool {
    // Either type of scale: 0 if the bits below the sign are. The words are decoded only for such rows.
    let mask = match format.second {
        Some(second) if second.scale == SuperScale::F32 => 0x7fff_ffff,
        _ => 0x7fff,
    };
    if scales.first().is_none_or(|word| word & mask != 0) {
        return false;
    }
    let row = unpack_row(format, k, codes, scales);
    row.codes.iter().enumerate().any(|(i, &code)| {
        let group = if format.group == Format::ROW { 0 } else { i / format.group as usize };
        let zero = match format.zero {
            Zero::Fixed(z) => f64::from(z),
            Zero::Point => row.zeros.get(group).copied().map_or(0.0, f64::from),
            Zero::Min => 0.0,
        };
        row.scales.get(group).is_some_and(|&s| s != 0.0) && format.code.value(code) != zero
    })
}

//! girih's own layout, version 1: `X.weight_codes` and `X.weight_scales` are the words that kernels read;
//! `X.input_scale`, `X.input_p1` and `X.input_p2` are what x is multiplied with.

use girih_ops::kernels::quant::{Activation, Code, Format, Scale, SuperScale};

use super::{Codes, Input, Mix, QuantModule, WORDS, expect_shape, found, matrix_shape, tensor};
use crate::LoadError;
use crate::weights::Weights;

pub(super) async fn open(
    w: &Weights,
    k: Option<u32>,
    format: Format,
    activation: Activation,
    hadamard: Option<u32>,
) -> Result<QuantModule, LoadError> {
    let codes = tensor(w, "weight_codes", &WORDS)?;
    let scales = tensor(w, "weight_scales", &WORDS)?;
    let [n, width] = matrix_shape(&codes)?;
    let k = k.unwrap_or((u64::from(width) * 32 / u64::from(format.code.bits())) as u32);
    expect_shape(&codes, &[n, format.code_words(k)])?;
    expect_shape(&scales, &[n, format.scale_words(k)])?;
    let scale = if w.has_tensor("input_scale") { Some(w.f32("input_scale", &[k]).await?) } else { None };
    let kronecker = w.has_tensor("input_p1") || w.has_tensor("input_p2");
    let mix = match hadamard {
        Some(_) if kronecker => {
            return Err(found(w, "input_p1", "beside a Hadamard transform", "the only mixing of channels"));
        }
        Some(block) if block > 0 && !k.is_multiple_of(block) => {
            return Err(found(w, "", format!("hadamard {block}"), format!("a divisor of its {k} columns")));
        }
        Some(block) => Mix::Hadamard { block },
        None if kronecker => {
            let [n1, _] = matrix_shape(&tensor(w, "input_p1", &super::FLOATS)?)?;
            let [n2, _] = matrix_shape(&tensor(w, "input_p2", &super::FLOATS)?)?;
            if u64::from(n1) * u64::from(n2) != u64::from(k) {
                let want = format!("square matrices with {k} channels together");
                return Err(found(w, "input_p1", format!("for {n1} x {n2} channels"), want));
            }
            let p1 = w.f32("input_p1", &[n1, n1]).await?;
            let p2 = w.f32("input_p2", &[n2, n2]).await?;
            Mix::Kronecker { p1: (n1, p1), p2: (n2, p2) }
        }
        None => Mix::None,
    };
    let codes = Codes::Words { codes, scales };
    Ok(QuantModule { n, k, format, activation, input: Input { scale, mix }, codes })
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
    Ok(())
}

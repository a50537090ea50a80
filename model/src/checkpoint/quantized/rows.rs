//! Layouts whose rows lie one behind the other, with scales in tensors of their own: compressed-tensors, MXFP4, NVFP4
//! and FP8. Rows are streamed; scales are held in memory as stored.

use std::sync::Arc;

use girih_ops::kernels::quant::{Code, Format, QuantActivation, Row, Scale, Super, SuperScale, Zero, float};

use super::{
    ChannelMix, Codes, InputTransform, Order, QuantModule, WORDS, bytes, element, expect_shape, found,
    group_of, matrix_shape, mis_shaped, order, tensor, words,
};
use crate::LoadError;
use crate::checkpoint::table::{StoredType, TensorInfo};
use crate::checkpoint::tensors::TensorScope;

/// How codes lie in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit words of integers, lowest bits first, stored with 2^(bits - 1) added.
    Words {
        /// 4 or 8.
        bits: u32,
    },
    /// Signed bytes.
    Int8,
    /// E4M3.
    E4m3,
    /// E2M1, the even channel in the low nibble.
    E2m1,
}

/// What a stored scale is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleCode {
    /// F32, F16 or BF16.
    Float,
    /// E4M3.
    E4m3,
    /// E8M0.
    E8m0,
}

/// Which weights share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// All, or those of a row: as the tensor's shape says.
    TensorOrRow,
    /// Channels of a row.
    Group(u32),
    /// Rows and channels.
    Block([u32; 2]),
}

/// Description of such a layout. Names are relative to the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    /// Tensor of the codes.
    pub codes: &'static str,
    /// How they lie.
    pub element: Element,
    /// Tensor of the scales.
    pub scales: &'static str,
    /// What they are.
    pub scale: ScaleCode,
    /// What they belong to.
    pub spread: Spread,
    /// Scale of the whole tensor; true: what the module stores divides.
    pub global: Option<(&'static str, bool)>,
    /// Zeros are stored (`weight_zero_point`).
    pub zeros: bool,
    /// Channels belong to groups in an order of their own, so that `weight_g_idx` must be there.
    pub ordered: bool,
    /// How x enters the product.
    pub activation: QuantActivation,
}

impl Packed {
    /// MXFP4 with blocks of 16 bytes (gpt-oss).
    pub const fn mxfp4(codes: &'static str, scales: &'static str) -> Self {
        Self {
            codes,
            element: Element::E2m1,
            scales,
            scale: ScaleCode::E8m0,
            spread: Spread::Group(32),
            global: None,
            zeros: false,
            ordered: false,
            activation: QuantActivation::Float,
        }
    }

    /// NVFP4; the tensor's scale is a factor or, with `divisor`, divides.
    ///
    /// Kernels multiply, so a divisor becomes its reciprocal, rounded to f32: a scale of a group is then
    /// `scale · fl(1 / divisor)`, which is `scale / divisor` exactly where the divisor is a power of two, and may differ
    /// by 1 ulp of f32 elsewhere.
    pub const fn nvfp4(codes: &'static str, global: &'static str, divisor: bool) -> Self {
        Self {
            scales: "weight_scale",
            scale: ScaleCode::E4m3,
            spread: Spread::Group(16),
            global: Some((global, divisor)),
            ..Self::mxfp4(codes, "")
        }
    }

    /// FP8 E4M3 in `weight`.
    pub const fn fp8(scales: &'static str, spread: Spread) -> Self {
        Self {
            codes: "weight",
            element: Element::E4m3,
            scales,
            scale: ScaleCode::Float,
            spread,
            global: None,
            zeros: false,
            ordered: false,
            activation: QuantActivation::Float,
        }
    }
}

#[derive(Debug)]
struct Layout {
    name: String,
    element: Element,
    dtype: StoredType,
    /// `[ceil(N / rows), groups]`, as stored.
    scales: Vec<u8>,
    code: ScaleCode,
    /// Rows with the same scales; 0: all.
    rows: u32,
    groups: usize,
    /// `[N, groups]` if there are any.
    zeros: Vec<i16>,
    global: Option<f32>,
    permutation: Option<Arc<[u32]>>,
    irregular: Option<Arc<[u32]>>,
}

fn scale(dtype: StoredType, code: ScaleCode, bytes: &[u8]) -> Option<f32> {
    let v = match (code, dtype, bytes) {
        (ScaleCode::E4m3, _, &[b]) => float::from_e4m3(b)?,
        (ScaleCode::E8m0, _, &[b]) => float::from_e8m0(b)?,
        (_, StoredType::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        (_, StoredType::F16, &[a, b]) => half::f16::from_le_bytes([a, b]).to_f32(),
        (_, _, &[a, b]) => half::bf16::from_le_bytes([a, b]).to_f32(),
        _ => return None,
    };
    v.is_finite().then_some(v)
}

impl super::RowLayout for Layout {
    fn row(&self, row: u32, k: u32, bytes: &[u8]) -> Result<Row, LoadError> {
        let k = k as usize;
        let codes: Vec<u8> = match self.element {
            Element::Words { bits: 8 } => bytes[..k].iter().map(|&b| b ^ 0x80).collect(),
            Element::Int8 | Element::E4m3 => bytes[..k].to_vec(),
            Element::Words { .. } | Element::E2m1 => {
                (0..k).map(|i| bytes[i / 2] >> (4 * (i % 2)) & 15).collect()
            }
        };
        if self.element == Element::E4m3
            && let Some(i) = codes.iter().position(|c| c & 0x7f == 0x7f)
        {
            let index = u64::from(row) * k as u64 + i as u64;
            return Err(LoadError::NotFinite { tensor: self.name.clone(), index, got: f32::NAN });
        }
        let size = (self.dtype.bits() / 8) as usize;
        let line = row.checked_div(self.rows).unwrap_or(0) as usize * self.groups;
        let at = |g: usize| {
            scale(self.dtype, self.code, &self.scales[(line + g) * size..][..size]).unwrap_or_default()
        };
        let zero = |g: usize| self.zeros.get(row as usize * self.groups + g).map(|&z| f32::from(z));
        let (scales, zeros) = match &self.irregular {
            None => ((0..self.groups).map(at).collect(), (0..self.groups).filter_map(zero).collect()),
            Some(of) => (
                of.iter().map(|&g| at(g as usize)).collect(),
                of.iter().filter_map(|&g| zero(g as usize)).collect(),
            ),
        };
        let codes = match &self.permutation {
            None => codes,
            Some(perm) => perm.iter().map(|&i| codes[i as usize]).collect(),
        };
        Ok(Row { codes, scales, zeros, supers: self.global.into_iter().collect(), super_mins: Vec::new() })
    }
}

/// Rows, columns and bytes of a row of the codes.
fn codes(w: &TensorScope, k: Option<u32>, o: &Packed) -> Result<(TensorInfo, [u32; 2], u64), LoadError> {
    match o.element {
        Element::Words { bits } => {
            let info = tensor(w, o.codes, &WORDS)?;
            let [n, width] = matrix_shape(&info)?;
            let k = k.unwrap_or((u64::from(width) * 32 / u64::from(bits)) as u32);
            let want = (u64::from(k) * u64::from(bits)).div_ceil(32) as u32;
            expect_shape(&info, &[n, want])?;
            Ok((info, [n, k], 4 * u64::from(want)))
        }
        Element::Int8 | Element::E4m3 => {
            let types = match o.element {
                Element::Int8 => vec![StoredType::I8],
                _ => vec![StoredType::F8E4M3, StoredType::U8],
            };
            let info = tensor(w, o.codes, &types)?;
            let [n, width] = matrix_shape(&info)?;
            let k = k.unwrap_or(width);
            expect_shape(&info, &[n, k])?;
            Ok((info, [n, k], u64::from(k)))
        }
        Element::E2m1 => {
            let mut info = tensor(w, o.codes, &[StoredType::U8])?;
            // Blocks of 16 bytes in a dimension of their own are the same bytes.
            match info.shape[..] {
                [n, g, 16] => info.shape = vec![n, g.saturating_mul(16)],
                // Those of all experts, one behind the other.
                [e, n, g, 16] => info.shape = vec![e.saturating_mul(n), g.saturating_mul(16)],
                _ => {}
            }
            let [n, width] = matrix_shape(&info)?;
            let k = k.unwrap_or(2 * width);
            expect_shape(&info, &[n, k.div_ceil(2)])?;
            Ok((info, [n, k], u64::from(k.div_ceil(2))))
        }
    }
}

/// A scale of the whole tensor.
async fn global(w: &TensorScope, name: &str, divisor: bool) -> Result<f32, LoadError> {
    let info = tensor(w, name, &super::FLOATS)?;
    if info.shape.iter().product::<u64>() != 1 {
        return Err(mis_shaped(&info, vec![1]));
    }
    let shape: Vec<u32> = info.shape.iter().map(|&d| d as u32).collect();
    let v = w.f32(name, &shape).await?.first().copied().unwrap_or(0.0);
    let v = if divisor { 1.0 / v } else { v };
    if v == 0.0 || !v.is_finite() {
        let want = "a number other than 0 whose reciprocal is finite".into();
        return Err(LoadError::Element { tensor: info.name, index: 0, got: v.to_string(), want });
    }
    Ok(v)
}

pub(super) async fn open(w: &TensorScope, k: Option<u32>, o: &Packed) -> Result<QuantModule, LoadError> {
    let shape = if w.has_tensor("weight_shape") { weight_shape(w).await? } else { None };
    let k = k.or(shape.map(|[_, k]| k));
    let (info, [n, k], row_bytes) = codes(w, k, o)?;
    if let Some(shape) = shape
        && shape != [n, k]
    {
        return Err(found(w, "weight_shape", format!("{shape:?}"), format!("{:?}", [n, k])));
    }
    // Static scales of activations do not count: activations are not rounded, or dynamically.
    for name in ["input_scale", "input_global_scale", "input_zero_point"] {
        w.ignore(name);
    }
    let types: &[StoredType] = match o.scale {
        ScaleCode::Float => &super::FLOATS,
        ScaleCode::E4m3 => &[StoredType::F8E4M3, StoredType::U8],
        ScaleCode::E8m0 => &[StoredType::F8E8M0, StoredType::U8],
    };
    let mut scales = tensor(w, o.scales, types)?;
    if let ([e, n, g], 4) = (&scales.shape[..], w.find(o.codes)?.shape.len()) {
        scales.shape = vec![e.saturating_mul(*n), *g];
    }
    let (rows, group) = match o.spread {
        Spread::TensorOrRow => {
            let count: u64 = scales.shape.iter().product();
            let per_row = matches!(scales.shape[..], [a] | [a, 1] if a == u64::from(n));
            if !per_row && count != 1 {
                return Err(mis_shaped(&scales, vec![n.into(), 1]));
            }
            (u32::from(per_row), k)
        }
        Spread::Group(group) => {
            if !k.is_multiple_of(group) {
                let got = format!("{k} columns");
                return Err(found(w, o.codes, got, format!("a multiple of the group size {group}")));
            }
            expect_shape(&scales, &[n, k / group])?;
            (1, group)
        }
        Spread::Block([rows, columns]) => {
            expect_shape(&scales, &[n.div_ceil(rows), k.div_ceil(columns)])?;
            (rows, columns)
        }
    };
    let group = group.min(k).max(1);
    let groups = k.div_ceil(group) as usize;
    let stored = bytes(w, &scales).await?;
    let size = (scales.dtype.bits() / 8) as usize;
    for (i, bytes) in stored.chunks_exact(size).enumerate() {
        if scale(scales.dtype, o.scale, bytes).is_none() {
            return Err(LoadError::NotFinite { tensor: scales.name, index: i as u64, got: f32::NAN });
        }
    }
    if rows == 0 && scale(scales.dtype, o.scale, &stored) == Some(0.0) {
        let want = "a scale of a whole tensor other than 0".into();
        return Err(LoadError::Element { tensor: scales.name, index: 0, got: "0".into(), want });
    }
    let f16 = stored
        .chunks_exact(size)
        .all(|b| scale(scales.dtype, o.scale, b).is_some_and(|v| half::f16::from_f32(v).to_f32() == v));
    let zeros = zeros(w, o, [n, groups as u32]).await?;
    let order = match o.spread {
        Spread::Group(group) => order(w, "weight_g_idx", k, group, o.ordered).await?,
        _ => Order::Plain,
    };
    let scale_type = match (o.scale, o.element) {
        (ScaleCode::E4m3, _) => Scale::E4m3,
        (ScaleCode::E8m0, _) => Scale::E8m0,
        (ScaleCode::Float, Element::Words { .. } | Element::Int8) if f16 => Scale::F16,
        (ScaleCode::Float, _) => Scale::F32,
    };
    let (code, middle) = match o.element {
        Element::Words { bits: 8 } | Element::Int8 => (Code::Int8, 0),
        Element::Words { .. } => (Code::Int4, 8),
        Element::E4m3 => (Code::E4m3, 0),
        Element::E2m1 => (Code::E2m1, 0),
    };
    let global = match o.global {
        Some((name, divisor)) => Some(global(w, name, divisor).await?),
        None => None,
    };
    let mut format = Format {
        code,
        group: group_of(group, k),
        scale: scale_type,
        zero: if zeros.is_empty() { Zero::Fixed(middle) } else { Zero::Point },
        second: global.map(|_| Super { group: Format::ROW, scale: SuperScale::F32 }),
    };
    let mut layout = Layout {
        name: info.name.clone(),
        element: o.element,
        dtype: scales.dtype,
        scales: stored,
        code: o.scale,
        rows,
        groups,
        zeros,
        global,
        permutation: None,
        irregular: None,
    };
    let mut mix = ChannelMix::None;
    match order {
        Order::Plain => {}
        Order::Permuted(perm) => {
            mix = ChannelMix::Permute(perm.clone());
            layout.permutation = Some(perm);
        }
        Order::Irregular(groups) => {
            format.group = 1;
            layout.irregular = Some(groups);
        }
    }
    Ok(QuantModule {
        n,
        k,
        format,
        activation: o.activation,
        input: InputTransform { scale: None, mix },
        codes: Codes::Bytes {
            file: info.file,
            start: info.range.start,
            row_bytes,
            order: None,
            layout: Arc::new(layout),
        },
    })
}

/// Rows and columns as stored beside packed words.
async fn weight_shape(w: &TensorScope) -> Result<Option<[u32; 2]>, LoadError> {
    let info = tensor(w, "weight_shape", &[StoredType::I64, StoredType::I32])?;
    expect_shape(&info, &[2])?;
    let bytes = bytes(w, &info).await?;
    let values: Vec<i64> = match info.dtype {
        StoredType::I64 => bytes.as_chunks().0.iter().map(|&c| i64::from_le_bytes(c)).collect(),
        _ => bytes.as_chunks().0.iter().map(|&c| i64::from(i32::from_le_bytes(c))).collect(),
    };
    let dims: Option<Vec<u32>> = values.iter().map(|&v| u32::try_from(v).ok()).collect();
    match dims.as_deref() {
        Some(&[n, k]) => Ok(Some([n, k])),
        _ => Err(found(w, "weight_shape", format!("{values:?}"), "two sizes")),
    }
}

/// `weight_zero_point`, packed along N beside packed words.
async fn zeros(w: &TensorScope, o: &Packed, [n, groups]: [u32; 2]) -> Result<Vec<i16>, LoadError> {
    const NAME: &str = "weight_zero_point";
    if !o.zeros {
        w.ignore(NAME);
        return Ok(Vec::new());
    }
    let columns = groups as usize;
    if let Element::Words { bits } = o.element {
        let info = tensor(w, NAME, &WORDS)?;
        let height = (u64::from(n) * u64::from(bits)).div_ceil(32) as u32;
        expect_shape(&info, &[height, groups])?;
        let words = words(w, &info).await?;
        let of_group: Vec<Vec<u32>> =
            (0..columns).map(|g| words.iter().skip(g).step_by(columns).copied().collect()).collect();
        let zero = |row: usize, g: usize| {
            let z = element(&of_group[g], row, bits) as i16;
            if bits == 8 { z - 128 } else { z }
        };
        return Ok((0..n as usize)
            .flat_map(|row| (0..columns).map(move |g| (row, g)))
            .map(|(r, g)| zero(r, g))
            .collect());
    }
    let info = tensor(w, NAME, &[StoredType::I8])?;
    if info.shape.iter().product::<u64>() != u64::from(n) * u64::from(groups) {
        return Err(mis_shaped(&info, vec![n.into(), groups.into()]));
    }
    Ok(bytes(w, &info).await?.into_iter().map(|b| i16::from(b as i8)).collect())
}

//! Which rows of which tensors a matrix is made of, and reading them to the host.

use std::ops::Range;
use std::sync::Arc;

use girih_ops::WeightFormat;
use girih_ops::kernels::quant::{self, Format, Row, quantize_row};

use super::Weights;
use super::experts::Transposed;
use super::heads::HeadTransposed;
use crate::LoadError;
use crate::checkpoint::quantized::{self, QuantModule};
use crate::checkpoint::table::{StoredType, TensorInfo};
use crate::checkpoint::tensors::{float_type, mis_shaped, to_f32};

/// Rows of a matrix or elements of a vector, as they lie in the checkpoint. Names are relative to the scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TensorRows<'a> {
    /// One tensor.
    All(&'a str),
    /// Tensors below each other: fused Q, K, V.
    Concat(&'a [&'a str]),
    /// Rows of two tensors alternately, beginning with the first: fused gate and up.
    Interleave(&'a str, &'a str),
    /// One tensor `[2F, K]` whose row `F + i` follows row `i`: gate and up that the checkpoint holds below each
    /// other.
    ConcatHalvesInterleaved(&'a str),
    /// Some rows of a tensor.
    Slice {
        /// Tensor.
        name: &'a str,
        /// Rows.
        rows: Range<u32>,
    },
    /// The same rows of every head, one head behind the other.
    Heads(HeadRows<'a>),
}

/// Some rows of each head of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadRows<'a> {
    /// Tensor or module.
    pub name: &'a str,
    /// Heads.
    pub heads: u32,
    /// Rows of a head.
    pub of: u32,
    /// Rows that are taken of a head.
    pub rows: Range<u32>,
}

impl<'a> From<&'a str> for TensorRows<'a> {
    fn from(name: &'a str) -> Self {
        Self::All(name)
    }
}

/// What rows are read from.
#[derive(Clone)]
pub(super) enum Origin<'a> {
    /// A tensor of floats. One of three dimensions has the rows of its matrices one behind the other.
    Dense(&'a TensorInfo),
    /// A tensor of floats whose matrices have rows where other ones have columns.
    Transposed(Arc<Transposed<'a>>),
    /// Heads of a module, whose columns are rows here.
    HeadTransposed(Arc<HeadTransposed<'a>>),
    /// A quantised module, with its name.
    Quant(Arc<QuantModule>, String),
}

impl Origin<'_> {
    pub fn name(&self) -> &str {
        match self {
            Self::Dense(info) => &info.name,
            Self::Transposed(stack) => &stack.info.name,
            Self::HeadTransposed(heads) => heads.origin.name(),
            Self::Quant(_, name) => name,
        }
    }

    pub fn shape(&self) -> Vec<u64> {
        match self {
            Self::Dense(info) => info.shape.clone(),
            Self::Transposed(stack) => stack.info.shape.clone(),
            Self::HeadTransposed(heads) => heads.origin.shape(),
            Self::Quant(module, _) => vec![module.n.into(), module.k.into()],
        }
    }

    fn rows(&self) -> u64 {
        self.shape().first().copied().unwrap_or(0)
    }

    pub fn check_shape(&self, want: &[u64]) -> Result<(), LoadError> {
        let got = self.shape();
        if got == want { Ok(()) } else { Err(mis_shaped(self.name().to_owned(), got, want.to_vec())) }
    }

    pub fn quant(&self) -> Option<&QuantModule> {
        match self {
            Self::Dense(_) | Self::Transposed(_) | Self::HeadTransposed(_) => None,
            Self::Quant(module, _) => Some(module),
        }
    }

    /// The tensor, if it is one of floats.
    pub fn dense(&self) -> Option<&TensorInfo> {
        match self {
            Self::Dense(info) => Some(info),
            Self::Transposed(stack) => Some(stack.info),
            Self::HeadTransposed(heads) => heads.origin.dense(),
            Self::Quant(..) => None,
        }
    }
}

/// Rows `first .. first + rows` of a tensor, put into every `stride`-th row from `dst` on.
#[derive(Clone)]
pub(super) struct Segment<'a> {
    pub origin: Origin<'a>,
    pub first: u64,
    pub rows: u64,
    pub dst: u64,
    pub stride: u64,
}

impl Weights {
    /// A vector of `n` elements on the host, in f32, put together from 1-D tensors as a matrix is from rows.
    ///
    /// # Errors
    /// As [`Weights::f32`]; another number of elements.
    pub async fn vector_f32(&self, rows: impl Into<TensorRows<'_>>, n: u32) -> Result<Vec<f32>, LoadError> {
        let segments = self.segments(&rows.into(), n, None).await?;
        self.vector_values(&segments, n).await
    }

    pub(super) async fn vector_values(
        &self,
        segments: &[Segment<'_>],
        n: u32,
    ) -> Result<Vec<f32>, LoadError> {
        let mut out = vec![0.0; n as usize];
        for s in segments {
            let Origin::Dense(info) = s.origin else { continue };
            let size = info.dtype.bits() / 8;
            let range = info.range.start + s.first * size..info.range.start + (s.first + s.rows) * size;
            let bytes = self.source().read(&info.file, range).await?;
            let values = to_f32(info, s.first, &bytes)?;
            for (slot, v) in out[s.dst as usize..].iter_mut().step_by(s.stride as usize).zip(values) {
                *slot = v;
            }
        }
        Ok(out)
    }

    /// The same rows on the host, in f32: what a reference computation needs. Quantised rows are decoded; transforms
    /// of x other than permutations are not undone.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub async fn matrix_f32(
        &self,
        rows: impl Into<TensorRows<'_>>,
        n: u32,
        k: u32,
    ) -> Result<Vec<f32>, LoadError> {
        let segments = self.segments(&rows.into(), n, Some(k)).await?;
        self.matrix_values(&segments, 0..n, k).await
    }

    /// Some rows of a matrix.
    pub(super) async fn matrix_values(
        &self,
        segments: &[Segment<'_>],
        rows: Range<u32>,
        k: u32,
    ) -> Result<Vec<f32>, LoadError> {
        for info in segments.iter().filter_map(|s| s.origin.dense()) {
            float_type(info)?;
        }
        let bytes = self.rows(segments, &rows, k, WeightFormat::F32).await?;
        Ok(bytes.as_chunks().0.iter().map(|&c| f32::from_le_bytes(c)).collect())
    }

    /// What a matrix (`k` is its number of columns) or vector is read from.
    pub(super) async fn origin(&self, name: &str, k: Option<u32>) -> Result<Origin<'_>, LoadError> {
        if let (Some(k), false) = (k, self.tensors.has_tensor(name) && self.stored(name).is_none())
            && let Some(module) = self.module(name, Some(k)).await?
        {
            return Ok(Origin::Quant(Arc::new(module), self.full(name)));
        }
        self.tensors.find(name).map(Origin::Dense)
    }

    /// Where the rows come from; together they fill `n` rows of `k` (1-D tensors if `k` is `None`) exactly once.
    pub(super) async fn segments(
        &self,
        rows: &TensorRows<'_>,
        n: u32,
        k: Option<u32>,
    ) -> Result<Vec<Segment<'_>>, LoadError> {
        let n = u64::from(n);
        let columns = k;
        let dims = |rows: u64| [Some(rows), k.map(u64::from)].into_iter().flatten().collect::<Vec<_>>();
        let (halves, odd) = (n / 2, !n.is_multiple_of(2));
        match *rows {
            TensorRows::All(name) => {
                let origin = self.origin(name, columns).await?;
                origin.check_shape(&dims(n))?;
                Ok(vec![Segment { origin, first: 0, rows: n, dst: 0, stride: 1 }])
            }
            TensorRows::Concat(names) => {
                let mut origins = Vec::with_capacity(names.len());
                for name in names {
                    origins.push(self.origin(name, columns).await?);
                }
                let total = origins.iter().try_fold(0u64, |sum, t| sum.checked_add(t.rows()));
                let mut segments = Vec::with_capacity(origins.len());
                let mut dst = 0;
                for origin in origins {
                    let rows = origin.rows();
                    // The last one is blamed if the sum is wrong and nothing else is.
                    let fits = total == Some(n) && rows > 0;
                    origin.check_shape(&dims(if fits { rows } else { n.saturating_sub(dst) }))?;
                    segments.push(Segment { origin, first: 0, rows, dst, stride: 1 });
                    dst += rows;
                }
                if dst == n {
                    return Ok(segments);
                }
                let got = vec![dst];
                let tensor = names.iter().map(|name| self.full(name)).collect::<Vec<_>>().join(" + ");
                Err(mis_shaped(tensor, got, dims(n)))
            }
            TensorRows::Interleave(first, second) => {
                let (a, b) = (self.origin(first, columns).await?, self.origin(second, columns).await?);
                if odd {
                    return Err(mis_shaped(a.name().to_owned(), a.shape(), dims(n)));
                }
                a.check_shape(&dims(halves))?;
                b.check_shape(&dims(halves))?;
                let half = |origin, dst| Segment { origin, first: 0, rows: halves, dst, stride: 2 };
                Ok(vec![half(a, 0), half(b, 1)])
            }
            TensorRows::ConcatHalvesInterleaved(name) => {
                let origin = self.origin(name, columns).await?;
                origin.check_shape(&dims(n))?;
                if odd {
                    return Err(mis_shaped(origin.name().to_owned(), origin.shape(), dims(n + 1)));
                }
                let half =
                    |first, dst| Segment { origin: origin.clone(), first, rows: halves, dst, stride: 2 };
                Ok(vec![half(0, 0), half(halves, 1)])
            }
            TensorRows::Slice { name, ref rows } => {
                let origin = self.origin(name, columns).await?;
                let (start, end) = (u64::from(rows.start), u64::from(rows.end));
                origin.check_shape(&dims(origin.rows().max(end)))?;
                if start > end || end - start != n {
                    let tensor = format!("{}[{start}..{end}]", origin.name());
                    return Err(mis_shaped(tensor, vec![end.saturating_sub(start)], dims(n)));
                }
                Ok(vec![Segment { origin, first: start, rows: n, dst: 0, stride: 1 }])
            }
            TensorRows::Heads(ref heads) => self.head_segments(heads, n, columns).await,
        }
    }

    /// Some rows of the matrix, packed elements of a dense format.
    pub(super) async fn rows(
        &self,
        segments: &[Segment<'_>],
        rows: &Range<u32>,
        k: u32,
        format: WeightFormat,
    ) -> Result<Vec<u8>, LoadError> {
        let element = u64::from(format.element_bytes().unwrap_or(4));
        let (total, row_bytes) = (rows.len(), (u64::from(k) * element) as usize);
        let mut out = Vec::new();
        for s in segments {
            let Some((from, to)) = s.within(rows) else { continue };
            let first = s.first + from;
            let bytes = match &s.origin {
                Origin::Dense(info) => {
                    let bytes = self.dense_rows(info, first..s.first + to, k).await?;
                    convert(info, first * u64::from(k), bytes, format)?
                }
                Origin::Transposed(stack) => {
                    let bytes = stack.rows(self.source(), first..s.first + to).await?;
                    let converted = convert(stack.info, first * u64::from(k), bytes, format);
                    converted.map_err(|error| stack.as_stored(error))?
                }
                Origin::HeadTransposed(heads) => {
                    let values = heads.rows(self, first..s.first + to).await?;
                    let name = heads.origin.name();
                    rounded(name, first * u64::from(k), values, format)?
                }
                Origin::Quant(module, _) => {
                    let rows = module.rows(self.source(), first as u32..(s.first + to) as u32).await?;
                    rows.iter().flat_map(|row| module.values(row)).flat_map(f32::to_le_bytes).collect()
                }
            };
            if s.stride == 1 && (to - from) as usize == total {
                return Ok(bytes);
            }
            out.resize(total * row_bytes, 0);
            for (j, row) in (from..to).zip(bytes.chunks_exact(row_bytes.max(1))) {
                let place = s.place(j, rows) * row_bytes;
                out[place..place + row_bytes].copy_from_slice(row);
            }
        }
        Ok(out)
    }

    /// Some rows of the matrix, as words of codes and scales.
    pub(super) async fn packed_rows(
        &self,
        segments: &[Segment<'_>],
        rows: &Range<u32>,
        k: u32,
        format: Format,
    ) -> Result<(Vec<u32>, Vec<u32>), LoadError> {
        let (code_words, scale_words) = (format.code_words(k) as usize, format.scale_words(k) as usize);
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for s in segments {
            let Some((from, to)) = s.within(rows) else { continue };
            let stored = s.first + from..s.first + to;
            let first = stored.start * u64::from(k);
            let (c, z) = match &s.origin {
                Origin::Dense(info) => {
                    let bytes = self.dense_rows(info, stored, k).await?;
                    quantise(format, k, &to_f32(info, first, &bytes)?)
                }
                Origin::Transposed(stack) => {
                    let bytes = stack.rows(self.source(), stored).await?;
                    let values = to_f32(stack.info, first, &bytes);
                    quantise(format, k, &values.map_err(|error| stack.as_stored(error))?)
                }
                Origin::HeadTransposed(heads) => quantise(format, k, &heads.rows(self, stored).await?),
                Origin::Quant(module, _) => {
                    let stored = stored.start as u32..stored.end as u32;
                    let words = if module.format == format {
                        module.words(self.source(), stored.clone()).await?
                    } else {
                        None
                    };
                    if let Some(words) = words {
                        words
                    } else {
                        let rows = module.rows(self.source(), stored).await?.into_iter();
                        pack(format, rows.map(|row| quantized::convert(row, module.format, format)))
                    }
                }
            };
            if s.stride == 1 && (to - from) as usize == rows.len() {
                return Ok((c, z));
            }
            codes.resize(rows.len() * code_words, 0);
            scales.resize(rows.len() * scale_words, 0);
            for (i, j) in (from..to).enumerate() {
                let place = s.place(j, rows);
                codes[place * code_words..][..code_words].copy_from_slice(&c[i * code_words..][..code_words]);
                scales[place * scale_words..][..scale_words]
                    .copy_from_slice(&z[i * scale_words..][..scale_words]);
            }
        }
        Ok((codes, scales))
    }

    pub(super) async fn dense_rows(
        &self,
        info: &TensorInfo,
        rows: Range<u64>,
        k: u32,
    ) -> Result<Vec<u8>, LoadError> {
        let stored = u64::from(k) * info.dtype.bits() / 8;
        let range = info.range.start + rows.start * stored..info.range.start + rows.end * stored;
        self.source().read(&info.file, range).await
    }
}

impl Segment<'_> {
    /// Source rows, less `first`, whose place `dst + j * stride` lies in `rows`.
    fn within(&self, rows: &Range<u32>) -> Option<(u64, u64)> {
        let index = |row: u32| u64::from(row).saturating_sub(self.dst).div_ceil(self.stride).min(self.rows);
        let (from, to) = (index(rows.start), index(rows.end));
        (from < to).then_some((from, to))
    }

    /// Behind its last row.
    pub(super) fn end(&self) -> u64 {
        self.dst + self.rows.saturating_sub(1) * self.stride + 1
    }

    /// Place of source row `first + j` among `rows`.
    fn place(&self, j: u64, rows: &Range<u32>) -> usize {
        (self.dst + j * self.stride - u64::from(rows.start)) as usize
    }
}

fn quantise(format: Format, k: u32, values: &[f32]) -> (Vec<u32>, Vec<u32>) {
    pack(format, values.chunks_exact(k as usize).map(|row| quantize_row(format, row)))
}

fn pack(format: Format, rows: impl Iterator<Item = Row>) -> (Vec<u32>, Vec<u32>) {
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for row in rows {
        quant::pack_row(format, &row, &mut codes, &mut scales);
    }
    (codes, scales)
}

fn convert(info: &TensorInfo, first: u64, bytes: Vec<u8>, want: WeightFormat) -> Result<Vec<u8>, LoadError> {
    // Same type: only look for NaN and infinity, which are the values with all exponent bits set.
    let exponent = match (info.dtype, want) {
        (StoredType::F16, WeightFormat::F16) => Some(0x7c00),
        (StoredType::BF16, WeightFormat::Bf16) => Some(0x7f80),
        _ => None,
    };
    if let Some(mask) = exponent {
        let bad = |&c: &[u8; 2]| u16::from_le_bytes(c) & mask == mask;
        if !bytes.as_chunks().0.iter().any(bad) {
            return Ok(bytes);
        }
    }
    let values = to_f32(info, first, &bytes)?;
    if (info.dtype, want) == (StoredType::F32, WeightFormat::F32) {
        return Ok(bytes);
    }
    drop(bytes);
    rounded(&info.name, first, values, want)
}

/// Values as elements of a dense format; `first` is the index of the first of them.
fn rounded(tensor: &str, first: u64, values: Vec<f32>, want: WeightFormat) -> Result<Vec<u8>, LoadError> {
    let checked = |i: usize, v: f32, back: f32| {
        if back.is_finite() {
            return Ok(());
        }
        let want = if want == WeightFormat::F16 { "F16" } else { "BF16" };
        Err(LoadError::OutOfRange { tensor: tensor.to_owned(), index: first + i as u64, got: v, want })
    };
    let mut out = Vec::with_capacity(values.len() * want.element_bytes().unwrap_or(4) as usize);
    for (i, v) in values.into_iter().enumerate() {
        match want {
            WeightFormat::F32 | WeightFormat::Quant(_) => out.extend_from_slice(&v.to_le_bytes()),
            WeightFormat::F16 => {
                let rounded = half::f16::from_f32(v);
                checked(i, v, rounded.to_f32())?;
                out.extend_from_slice(&rounded.to_le_bytes());
            }
            WeightFormat::Bf16 => {
                let rounded = half::bf16::from_f32(v);
                checked(i, v, rounded.to_f32())?;
                out.extend_from_slice(&rounded.to_le_bytes());
            }
        }
    }
    Ok(out)
}

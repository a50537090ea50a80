//! Weights by descending scopes, streamed from the checkpoint to the GPU.
//!
//! Host memory stays bounded: a matrix travels in chunks of rows of at most 32 MB.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use girih_ops::{Gpu, Matrix, Tensor, WeightType};

use crate::format::safetensors::{StoredType, TensorInfo, TensorTable};
use crate::source::ByteSource;
use crate::{LoadError, MisShaped};

/// Bytes of rows in flight on the host, in the wider of stored and wanted type.
const CHUNK: u64 = 32 << 20;
/// Uploads are staged by the device; this many bytes later it is waited for, so that staging memory is bounded too.
const FLUSH: u64 = 64 << 20;
/// Tensors that published checkpoints carry and models compute themselves.
const KNOWN_UNUSED: [&str; 4] =
    ["rotary_emb.inv_freq", "attn.masked_bias", "attention.masked_bias", "embeddings.position_ids"];

/// How weights are stored on the GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightPolicy {
    /// A type to convert matrices to. `None`: as in the checkpoint (f32 where parts of a matrix differ).
    pub force: Option<WeightType>,
}

/// Rows of a matrix or elements of a vector, as they lie in the checkpoint. Names are relative to the scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows<'a> {
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
}

impl<'a> From<&'a str> for Rows<'a> {
    fn from(name: &'a str) -> Self {
        Self::All(name)
    }
}

/// What a load did not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Tensors that were never asked for, without those known to be superfluous.
    pub unused: Vec<String>,
}

#[derive(Debug)]
struct Checkpoint {
    source: Arc<dyn ByteSource>,
    table: TensorTable,
    policy: WeightPolicy,
    used: Mutex<BTreeSet<String>>,
    staged: Mutex<u64>,
}

/// A checkpoint and a place in its tree of names. Clones and scopes share the record of what was used.
#[derive(Clone, Debug)]
pub struct Weights {
    checkpoint: Arc<Checkpoint>,
    scope: String,
}

/// Rows `first .. first + rows` of a tensor, put into every `stride`-th row from `dst` on.
struct Segment<'a> {
    info: &'a TensorInfo,
    first: u64,
    rows: u64,
    dst: u64,
    stride: u64,
}

impl Weights {
    /// Reads the headers of a checkpoint.
    ///
    /// # Errors
    /// As [`TensorTable::open`].
    pub async fn open(source: Arc<dyn ByteSource>, policy: WeightPolicy) -> Result<Self, LoadError> {
        let table = TensorTable::open(source.as_ref()).await?;
        Ok(Self::new(source, table, policy))
    }

    /// Weights of tensors that are known already.
    pub fn new(source: Arc<dyn ByteSource>, table: TensorTable, policy: WeightPolicy) -> Self {
        let (used, staged) = (Mutex::default(), Mutex::default());
        let checkpoint = Checkpoint { source, table, policy, used, staged };
        Self { checkpoint: Arc::new(checkpoint), scope: String::new() }
    }

    /// The part of the tree below `name`, which may hold several steps: `model.layers.0`.
    #[must_use]
    pub fn scope(&self, name: impl std::fmt::Display) -> Self {
        Self { checkpoint: self.checkpoint.clone(), scope: self.full(&name.to_string()) }
    }

    /// Full name of a tensor of this scope.
    pub fn full(&self, name: &str) -> String {
        match (self.scope.as_str(), name) {
            (scope, "") => scope.to_owned(),
            ("", name) => name.to_owned(),
            (scope, name) => format!("{scope}.{name}"),
        }
    }

    /// All tensors of the checkpoint.
    pub fn table(&self) -> &TensorTable {
        &self.checkpoint.table
    }

    /// How weights are stored.
    pub fn policy(&self) -> WeightPolicy {
        self.checkpoint.policy
    }

    /// Whether there is a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.info(name).is_some()
    }

    /// A tensor's description. Does not count as use.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.checkpoint.table.get(&self.full(name))
    }

    /// Names not used so far by any scope.
    pub fn report(&self) -> Report {
        let used = self.checkpoint.used.lock().unwrap_or_else(PoisonError::into_inner);
        let superfluous = |name: &str| KNOWN_UNUSED.iter().any(|suffix| name.ends_with(suffix));
        let unused = self.checkpoint.table.iter().map(|t| &t.name);
        Report { unused: unused.filter(|n| !used.contains(*n) && !superfluous(n)).cloned().collect() }
    }

    /// Counts a tensor as used although nothing is loaded of it: a tied head that the checkpoint repeats.
    pub fn ignore(&self, name: &str) {
        let mut used = self.checkpoint.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.insert(self.full(name));
    }

    /// Whether two tensors are the same, byte for byte.
    ///
    /// # Errors
    /// Those of the source.
    pub async fn same(&self, name: &str, other: &Self, other_name: &str) -> Result<bool, LoadError> {
        let (Some(a), Some(b)) = (self.info(name), other.info(other_name)) else { return Ok(false) };
        if (a.dtype, &a.shape) != (b.dtype, &b.shape) {
            return Ok(false);
        }
        let len = a.range.end - a.range.start;
        let mut at = 0;
        while at < len {
            let end = len.min(at + CHUNK);
            let part = |info: &TensorInfo| info.range.start + at..info.range.start + end;
            let mine = self.checkpoint.source.read(&a.file, part(a)).await?;
            if mine != other.checkpoint.source.read(&b.file, part(b)).await? {
                return Ok(false);
            }
            at = end;
        }
        Ok(true)
    }

    fn find(&self, name: &str) -> Result<&TensorInfo, LoadError> {
        self.ignore(name);
        self.info(name).ok_or_else(|| LoadError::Tensors {
            missing: vec![self.full(name)],
            mis_shaped: Vec::new(),
            unused: self.report().unused,
        })
    }

    /// Values of a tensor, converted exactly (f64: rounded) to f32.
    ///
    /// # Errors
    /// A tensor that is missing, of another shape or of a type that is not a plain float; NaN and infinity.
    pub async fn f32(&self, name: &str, shape: &[u32]) -> Result<Vec<f32>, LoadError> {
        let info = self.find(name)?;
        check_shape(info, &shape.iter().map(|&d| u64::from(d)).collect::<Vec<_>>())?;
        float_type(info)?;
        let bytes = self.checkpoint.source.read(&info.file, info.range.clone()).await?;
        to_f32(info, 0, &bytes)
    }

    /// A tensor on the GPU, in f32.
    ///
    /// # Errors
    /// As [`Weights::f32`]; memory that is exhausted.
    pub async fn tensor(&self, gpu: &Gpu, name: &str, shape: &[u32]) -> Result<Tensor, LoadError> {
        let values = self.f32(name, shape).await?;
        self.flush(gpu, 4 * values.len() as u64).await?;
        Ok(Tensor::from_f32(gpu, &values, shape)?)
    }

    /// A vector of `n` elements on the GPU, in f32, put together from 1-D tensors as a matrix is from rows.
    ///
    /// # Errors
    /// As [`Weights::f32`]; another number of elements.
    pub async fn vector(&self, gpu: &Gpu, rows: impl Into<Rows<'_>>, n: u32) -> Result<Tensor, LoadError> {
        let values = self.vector_f32(rows, n).await?;
        Ok(Tensor::from_f32(gpu, &values, &[n])?)
    }

    /// As [`Weights::vector`], on the host.
    ///
    /// # Errors
    /// As [`Weights::vector`].
    pub async fn vector_f32(&self, rows: impl Into<Rows<'_>>, n: u32) -> Result<Vec<f32>, LoadError> {
        let segments = self.segments(&rows.into(), n, None)?;
        let mut out = vec![0.0; n as usize];
        for s in &segments {
            let size = s.info.dtype.bits() / 8;
            let range = s.info.range.start + s.first * size..s.info.range.start + (s.first + s.rows) * size;
            let bytes = self.checkpoint.source.read(&s.info.file, range).await?;
            let values = to_f32(s.info, s.first, &bytes)?;
            for (slot, v) in out[s.dst as usize..].iter_mut().step_by(s.stride as usize).zip(values) {
                *slot = v;
            }
        }
        Ok(out)
    }

    /// A weight matrix `[n, k]` on the GPU, of the checkpoint's type (f32 where its parts differ) unless the policy
    /// forces one.
    ///
    /// # Errors
    /// As [`Weights::f32`]; another number of rows; values that the forced type cannot hold.
    pub async fn matrix(
        &self,
        gpu: &Gpu,
        rows: impl Into<Rows<'_>>,
        n: u32,
        k: u32,
    ) -> Result<Matrix, LoadError> {
        let segments = self.segments(&rows.into(), n, Some(k))?;
        let weight_type = self.weight_type(&segments)?;
        let matrix = Matrix::alloc(gpu, weight_type, n, k)?;
        for rows in chunks(n, k, CHUNK) {
            let bytes = self.rows(&segments, &rows, k, weight_type).await?;
            matrix.write_rows(gpu, rows.start, &bytes)?;
            self.flush(gpu, bytes.len() as u64).await?;
        }
        Ok(matrix)
    }

    /// The same rows on the host, in f32: what a reference computation needs.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub async fn matrix_f32(&self, rows: impl Into<Rows<'_>>, n: u32, k: u32) -> Result<Vec<f32>, LoadError> {
        let segments = self.segments(&rows.into(), n, Some(k))?;
        self.weight_type(&segments)?;
        let bytes = self.rows(&segments, &(0..n), k, WeightType::F32).await?;
        Ok(bytes.as_chunks().0.iter().map(|&c| f32::from_le_bytes(c)).collect())
    }

    /// Waits for the device now and then, so that it can free the memory of finished uploads.
    async fn flush(&self, gpu: &Gpu, bytes: u64) -> Result<(), LoadError> {
        let due = {
            let mut staged = self.checkpoint.staged.lock().unwrap_or_else(PoisonError::into_inner);
            *staged += bytes;
            let due = *staged >= FLUSH;
            if due {
                *staged = 0;
            }
            due
        };
        if due {
            gpu.read(&gpu.dummy()?).await?;
        }
        Ok(())
    }

    fn weight_type(&self, segments: &[Segment<'_>]) -> Result<WeightType, LoadError> {
        let mut found: Option<WeightType> = None;
        for s in segments {
            let stored = float_type(s.info)?;
            found = Some(found.map_or(stored, |t| if t == stored { t } else { WeightType::F32 }));
        }
        Ok(self.policy().force.or(found).unwrap_or(WeightType::F32))
    }

    /// Where the rows come from; together they fill `n` rows of `k` (1-D tensors if `k` is `None`) exactly once.
    fn segments(&self, rows: &Rows<'_>, n: u32, k: Option<u32>) -> Result<Vec<Segment<'_>>, LoadError> {
        let n = u64::from(n);
        let dims = |rows: u64| [Some(rows), k.map(u64::from)].into_iter().flatten().collect::<Vec<_>>();
        let (halves, odd) = (n / 2, !n.is_multiple_of(2));
        match *rows {
            Rows::All(name) => {
                let info = self.find(name)?;
                check_shape(info, &dims(n))?;
                Ok(vec![Segment { info, first: 0, rows: n, dst: 0, stride: 1 }])
            }
            Rows::Concat(names) => {
                let infos = names.iter().map(|name| self.find(name)).collect::<Result<Vec<_>, _>>()?;
                let total = infos.iter().try_fold(0u64, |sum, t| sum.checked_add(rows_of(t)));
                let mut segments = Vec::with_capacity(infos.len());
                let mut dst = 0;
                for info in infos {
                    let rows = rows_of(info);
                    // The last one is blamed if the sum is wrong and nothing else is.
                    let fits = total == Some(n) && rows > 0;
                    check_shape(info, &dims(if fits { rows } else { n.saturating_sub(dst) }))?;
                    segments.push(Segment { info, first: 0, rows, dst, stride: 1 });
                    dst += rows;
                }
                if dst == n {
                    return Ok(segments);
                }
                let got = vec![dst];
                let tensor = names.iter().map(|name| self.full(name)).collect::<Vec<_>>().join(" + ");
                Err(mis_shaped(tensor, got, dims(n)))
            }
            Rows::Interleave(first, second) => {
                let infos = [self.find(first)?, self.find(second)?];
                if odd {
                    return Err(mis_shaped(infos[0].name.clone(), infos[0].shape.clone(), dims(n)));
                }
                infos.iter().try_for_each(|info| check_shape(info, &dims(halves)))?;
                let [a, b] = infos;
                let half = |info, dst| Segment { info, first: 0, rows: halves, dst, stride: 2 };
                Ok(vec![half(a, 0), half(b, 1)])
            }
            Rows::ConcatHalvesInterleaved(name) => {
                let info = self.find(name)?;
                check_shape(info, &dims(n))?;
                if odd {
                    return Err(mis_shaped(info.name.clone(), info.shape.clone(), dims(n + 1)));
                }
                let half = |first, dst| Segment { info, first, rows: halves, dst, stride: 2 };
                Ok(vec![half(0, 0), half(halves, 1)])
            }
            Rows::Slice { name, ref rows } => {
                let info = self.find(name)?;
                let (start, end) = (u64::from(rows.start), u64::from(rows.end));
                check_shape(info, &dims(rows_of(info).max(end)))?;
                if start > end || end - start != n {
                    let tensor = format!("{}[{start}..{end}]", info.name);
                    return Err(mis_shaped(tensor, vec![end.saturating_sub(start)], dims(n)));
                }
                Ok(vec![Segment { info, first: start, rows: n, dst: 0, stride: 1 }])
            }
        }
    }

    /// Some rows of the matrix, packed elements of `weight_type`.
    async fn rows(
        &self,
        segments: &[Segment<'_>],
        rows: &Range<u32>,
        k: u32,
        weight_type: WeightType,
    ) -> Result<Vec<u8>, LoadError> {
        let (begin, end, k) = (u64::from(rows.start), u64::from(rows.end), u64::from(k));
        let row_bytes = (k * u64::from(weight_type.bytes())) as usize;
        let mut out = Vec::new();
        for s in segments {
            // Source rows whose place dst + j * stride lies in begin..end.
            let from = begin.saturating_sub(s.dst).div_ceil(s.stride).min(s.rows);
            let to = end.saturating_sub(s.dst).div_ceil(s.stride).min(s.rows);
            if from >= to {
                continue;
            }
            let stored = k * s.info.dtype.bits() / 8;
            let start = s.info.range.start + (s.first + from) * stored;
            let bytes =
                self.checkpoint.source.read(&s.info.file, start..start + (to - from) * stored).await?;
            let bytes = convert(s.info, (s.first + from) * k, bytes, weight_type)?;
            if s.stride == 1 && to - from == end - begin {
                return Ok(bytes);
            }
            out.resize((end - begin) as usize * row_bytes, 0);
            for (j, row) in (from..to).zip(bytes.chunks_exact(row_bytes.max(1))) {
                let place = (s.dst + j * s.stride - begin) as usize * row_bytes;
                out[place..place + row_bytes].copy_from_slice(row);
            }
        }
        Ok(out)
    }
}

fn chunks(n: u32, k: u32, bytes: u64) -> impl Iterator<Item = Range<u32>> {
    // 8 bytes cover f64, the widest type that is read.
    let rows = (bytes / (8 * u64::from(k)).max(1)).clamp(1, u64::from(n).max(1)) as u32;
    (0..n).step_by(rows as usize).map(move |first| first..first.saturating_add(rows).min(n))
}

fn rows_of(info: &TensorInfo) -> u64 {
    info.shape.first().copied().unwrap_or(0)
}

fn mis_shaped(tensor: String, got: Vec<u64>, want: Vec<u64>) -> LoadError {
    let mis_shaped = vec![MisShaped { tensor, got, want }];
    LoadError::Tensors { missing: Vec::new(), mis_shaped, unused: Vec::new() }
}

fn check_shape(info: &TensorInfo, want: &[u64]) -> Result<(), LoadError> {
    if info.shape == want {
        return Ok(());
    }
    Err(mis_shaped(info.name.clone(), info.shape.clone(), want.to_vec()))
}

/// The type in which a stored type is kept on the GPU.
fn float_type(info: &TensorInfo) -> Result<WeightType, LoadError> {
    match info.dtype {
        StoredType::F32 | StoredType::F64 => Ok(WeightType::F32),
        StoredType::F16 => Ok(WeightType::F16),
        StoredType::BF16 => Ok(WeightType::Bf16),
        other => Err(LoadError::StoredType {
            tensor: info.name.clone(),
            got: other.name(),
            want: "F64, F32, F16 or BF16",
        }),
    }
}

/// Converts stored elements, the first of which has the index `first` in its tensor.
fn to_f32(info: &TensorInfo, first: u64, bytes: &[u8]) -> Result<Vec<f32>, LoadError> {
    let values: Vec<f32> = match info.dtype {
        StoredType::F32 => bytes.as_chunks().0.iter().map(|&c| f32::from_le_bytes(c)).collect(),
        StoredType::F64 => bytes.as_chunks().0.iter().map(|&c| f64::from_le_bytes(c) as f32).collect(),
        StoredType::F16 => {
            bytes.as_chunks().0.iter().map(|&c| half::f16::from_le_bytes(c).to_f32()).collect()
        }
        StoredType::BF16 => {
            bytes.as_chunks().0.iter().map(|&c| half::bf16::from_le_bytes(c).to_f32()).collect()
        }
        _ => return float_type(info).map(|_| Vec::new()),
    };
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(values),
        Some(i) => {
            Err(LoadError::NotFinite { tensor: info.name.clone(), index: first + i as u64, got: values[i] })
        }
    }
}

fn convert(info: &TensorInfo, first: u64, bytes: Vec<u8>, want: WeightType) -> Result<Vec<u8>, LoadError> {
    // Same type: only look for NaN and infinity, which are the values with all exponent bits set.
    let exponent = match (info.dtype, want) {
        (StoredType::F16, WeightType::F16) => Some(0x7c00),
        (StoredType::BF16, WeightType::Bf16) => Some(0x7f80),
        _ => None,
    };
    if let Some(mask) = exponent {
        let bad = |&c: &[u8; 2]| u16::from_le_bytes(c) & mask == mask;
        if !bytes.as_chunks().0.iter().any(bad) {
            return Ok(bytes);
        }
    }
    let values = to_f32(info, first, &bytes)?;
    if (info.dtype, want) == (StoredType::F32, WeightType::F32) {
        return Ok(bytes);
    }
    drop(bytes);
    let checked = |i: usize, v: f32, back: f32| {
        if back.is_finite() {
            return Ok(());
        }
        let want = if want == WeightType::F16 { "F16" } else { "BF16" };
        Err(LoadError::OutOfRange { tensor: info.name.clone(), index: first + i as u64, got: v, want })
    };
    let mut out = Vec::with_capacity(values.len() * want.bytes() as usize);
    for (i, v) in values.into_iter().enumerate() {
        match want {
            WeightType::F32 => out.extend_from_slice(&v.to_le_bytes()),
            WeightType::F16 => {
                let rounded = half::f16::from_f32(v);
                checked(i, v, rounded.to_f32())?;
                out.extend_from_slice(&rounded.to_le_bytes());
            }
            WeightType::Bf16 => {
                let rounded = half::bf16::from_f32(v);
                checked(i, v, rounded.to_f32())?;
                out.extend_from_slice(&rounded.to_le_bytes());
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemorySource;
    use crate::testing::block_on;

    /// Tensors [name, type, shape, values]; the data of each follows that of the one before.
    fn weights(tensors: &[(&str, StoredType, &[u32], &[f32])], policy: WeightPolicy) -> Weights {
        let mut header = serde_json::Map::new();
        let mut data = Vec::new();
        for (name, dtype, shape, values) in tensors {
            let begin = data.len();
            for &v in *values {
                match dtype {
                    StoredType::F32 => data.extend(v.to_le_bytes()),
                    StoredType::F16 => data.extend(half::f16::from_f32(v).to_le_bytes()),
                    StoredType::BF16 => data.extend(half::bf16::from_f32(v).to_le_bytes()),
                    StoredType::F64 => data.extend(f64::from(v).to_le_bytes()),
                    _ => data.push(v as u8),
                }
            }
            let entry = serde_json::json!({
                "dtype": dtype.name(), "shape": shape, "data_offsets": [begin, data.len()]});
            header.insert((*name).to_owned(), entry);
        }
        let header = serde_json::to_vec(&header).expect("serialises");
        let file = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
        let source = Arc::new(MemorySource::new().with("model.safetensors", file));
        block_on(Weights::open(source, policy)).expect("opens")
    }

    const A: &[f32] = &[1.0, 2.0, 3.0, 4.0];
    const B: &[f32] = &[5.0, 6.0, 7.0, 8.0];

    fn two() -> Weights {
        use StoredType::{BF16, F16, F32, U8};
        weights(
            &[
                ("m.a", BF16, &[2, 2], A),
                ("m.b", BF16, &[2, 2], B),
                ("m.h", F16, &[2, 2], B),
                ("m.v", F32, &[4], A),
                ("m.i", U8, &[4], A),
                ("m.rotary_emb.inv_freq", F32, &[4], A),
            ],
            WeightPolicy::default(),
        )
    }

    #[test]
    fn rows_are_put_together() {
        let w = two().scope("m");
        let get = |rows: Rows<'_>, n| block_on(w.matrix_f32(rows, n, 2)).expect("loads");
        assert_eq!(get(Rows::All("a"), 2), A);
        assert_eq!(get(Rows::Concat(&["b", "a", "h"]), 6), [B, A, B].concat());
        assert_eq!(get(Rows::Interleave("a", "b"), 4), [1., 2., 5., 6., 3., 4., 7., 8.]);
        assert_eq!(get(Rows::Slice { name: "a", rows: 1..2 }, 1), [3., 4.]);
        let vector = |rows: Rows<'_>, n| block_on(w.vector_f32(rows, n)).expect("loads");
        assert_eq!(vector(Rows::ConcatHalvesInterleaved("v"), 4), [1., 3., 2., 4.]);
        assert_eq!(vector(Rows::Concat(&["v", "v"]), 8), [A, A].concat());
        assert_eq!(vector(Rows::Slice { name: "v", rows: 1..3 }, 2), [2., 3.]);
        assert_eq!(w.report().unused, ["m.i"]);
    }

    /// Every way of splitting the rows into chunks gives the same bytes.
    #[test]
    fn chunks_join_seamlessly() {
        let values: Vec<f32> = (0..42).map(|i| i as f32).collect();
        let w = weights(
            &[("a", StoredType::F16, &[14, 3], &values), ("b", StoredType::F16, &[7, 3], &values[..21])],
            WeightPolicy::default(),
        );
        let parts = ["b", "a"];
        let cases = [
            (Rows::Concat(&parts), 21),
            (Rows::ConcatHalvesInterleaved("a"), 14),
            (Rows::Interleave("a", "a"), 28),
            (Rows::Slice { name: "a", rows: 3..10 }, 7),
        ];
        for (rows, n) in cases {
            let segments = w.segments(&rows, n, Some(3)).expect("fits");
            let whole = block_on(w.rows(&segments, &(0..n), 3, WeightType::F16)).expect("loads");
            for size in 1..=n {
                let split: Vec<u8> = chunks(n, 3, u64::from(size) * 24)
                    .flat_map(|r| block_on(w.rows(&segments, &r, 3, WeightType::F16)).expect("loads"))
                    .collect();
                assert!(split == whole, "{rows:?} in chunks of {size}");
            }
        }
    }

    #[test]
    fn types() {
        let w = two().scope("m");
        let type_of = |names: &[&str]| {
            let segments = w.segments(&Rows::Concat(names), 2 * names.len() as u32, Some(2)).expect("fits");
            w.weight_type(&segments).expect("float")
        };
        assert_eq!(type_of(&["a", "b"]), WeightType::Bf16);
        assert_eq!(type_of(&["a", "h"]), WeightType::F32);
        let error = block_on(w.f32("i", &[4])).expect_err("integers");
        assert!(matches!(error, LoadError::StoredType { got: "U8", .. }), "{error}");
        let wide = weights(&[("w", StoredType::F64, &[2], &[0.5, 3.0])], WeightPolicy::default());
        assert_eq!(block_on(wide.f32("w", &[2])).expect("rounds"), [0.5, 3.0]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let w = two();
        let error = block_on(w.scope("m").f32("nope", &[1])).expect_err("missing");
        assert!(matches!(&error, LoadError::Tensors { missing, .. } if missing == &["m.nope"]), "{error}");
        for (rows, n, k) in [
            (Rows::All("m.a"), 3, 2),
            (Rows::All("m.a"), 2, 4),
            (Rows::Concat(&["m.a", "m.b"]), 5, 2),
            (Rows::Concat(&["m.a", "m.b"]), 3, 2),
            (Rows::Concat(&["m.a", "m.v"]), 6, 2),
            (Rows::Concat(&[]), 1, 2),
            (Rows::Interleave("m.a", "m.b"), 3, 2),
            (Rows::Slice { name: "m.a", rows: 1..3 }, 2, 2),
            (Rows::Slice { name: "m.a", rows: 0..1 }, 2, 2),
        ] {
            let error = block_on(w.matrix_f32(rows.clone(), n, k)).expect_err("does not fit");
            assert!(
                matches!(&error, LoadError::Tensors { mis_shaped, .. } if mis_shaped.len() == 1),
                "{rows:?}: {error}"
            );
        }
    }

    #[test]
    fn values_that_are_no_numbers() {
        for dtype in [StoredType::F32, StoredType::F16, StoredType::BF16, StoredType::F64] {
            let w = weights(&[("w", dtype, &[2, 2], &[0.0, 1.0, f32::NAN, 1.0])], WeightPolicy::default());
            let segments = w.segments(&Rows::All("w"), 2, Some(2)).expect("fits");
            for want in [WeightType::F32, WeightType::F16, WeightType::Bf16] {
                let error = block_on(w.rows(&segments, &(1..2), 2, want)).expect_err("NaN");
                assert!(matches!(error, LoadError::NotFinite { index: 2, .. }), "{dtype:?}: {error}");
            }
        }
        let big = weights(&[("w", StoredType::BF16, &[1, 2], &[1.0, 1e10])], WeightPolicy::default());
        let segments = big.segments(&Rows::All("w"), 1, Some(2)).expect("fits");
        let error = block_on(big.rows(&segments, &(0..1), 2, WeightType::F16)).expect_err("too large");
        assert!(matches!(error, LoadError::OutOfRange { index: 1, want: "F16", .. }), "{error}");
    }
}

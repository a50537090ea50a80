//! Weights by descending scopes, streamed from the checkpoint to the GPU.
//!
//! Host memory stays bounded: a matrix travels in chunks of rows of at most 32 MB.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use girih_ops::kernels::matmul::int::is_integer;
use girih_ops::kernels::quant::{self, Activation, Code, Format, Row, quantize_row};
use girih_ops::{Gpu, Matrix, Tensor, WeightFormat};

use crate::format::safetensors::{StoredType, TensorInfo, TensorTable};
use crate::quantized::{self, Mix, QuantModule, Quantization, Stored};
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
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WeightPolicy {
    /// A format to convert linear layers to. `None`: as in the checkpoint (f32 where dense parts of a matrix differ).
    ///
    /// Dense layers are rounded to nearest. As in llama.cpp, embeddings are not quantised (nor a head that is the
    /// embedding), and a head of its own gets 8 bits at least ([`Format::Q8_0`]). Layers that the checkpoint stores
    /// quantised keep their format: another one is an error, except [`WeightFormat::F32`], which decodes them
    /// exactly.
    pub force: Option<WeightFormat>,
    /// How x enters products with quantised layers, in place of what the checkpoint says. Layers that
    /// [`WeightPolicy::force`] quantises count; layers that are dense on the GPU take x as it is.
    pub activations: Option<Activation>,
}

/// The format that users call so: `f32`, `f16`, `bf16`, `int8` ([`Format::Q8_0`]), `int4` ([`Format::Q4_0`]), `mxfp4`,
/// `nvfp4`, or the name of a [`Format`].
///
/// # Errors
/// Another name.
pub fn weight_format(name: &str) -> Result<WeightFormat, quant::FormatError> {
    Ok(match name {
        "f32" => WeightFormat::F32,
        "f16" => WeightFormat::F16,
        "bf16" => WeightFormat::Bf16,
        "int8" => Format::Q8_0.into(),
        "int4" => Format::Q4_0.into(),
        "mxfp4" => Format::MXFP4.into(),
        "nvfp4" => Format::NVFP4.into(),
        other => other.parse::<Format>()?.into(),
    })
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
    /// What was loaded in another way than it is stored, and parts of the checkpoint's description that do not count.
    pub notes: Vec<String>,
}

#[derive(Debug)]
struct Checkpoint {
    source: Arc<dyn ByteSource>,
    table: TensorTable,
    quantization: Quantization,
    policy: WeightPolicy,
    used: Mutex<BTreeSet<String>>,
    notes: Mutex<Vec<String>>,
    staged: Mutex<u64>,
    /// Bytes and numbers on the GPU.
    placed: Mutex<(u64, u64)>,
}

/// A checkpoint and a place in its tree of names. Clones and scopes share the record of what was used.
#[derive(Clone, Debug)]
pub struct Weights {
    checkpoint: Arc<Checkpoint>,
    scope: String,
}

/// What rows are read from.
#[derive(Clone)]
enum Origin<'a> {
    /// A tensor of floats.
    Dense(&'a TensorInfo),
    /// A quantised module, with its name.
    Quant(Arc<QuantModule>, String),
}

impl Origin<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Dense(info) => &info.name,
            Self::Quant(_, name) => name,
        }
    }

    fn shape(&self) -> Vec<u64> {
        match self {
            Self::Dense(info) => info.shape.clone(),
            Self::Quant(module, _) => vec![module.n.into(), module.k.into()],
        }
    }

    fn rows(&self) -> u64 {
        self.shape().first().copied().unwrap_or(0)
    }

    fn check_shape(&self, want: &[u64]) -> Result<(), LoadError> {
        let got = self.shape();
        if got == want { Ok(()) } else { Err(mis_shaped(self.name().to_owned(), got, want.to_vec())) }
    }

    fn quant(&self) -> Option<&QuantModule> {
        match self {
            Self::Dense(_) => None,
            Self::Quant(module, _) => Some(module),
        }
    }
}

/// Rows `first .. first + rows` of a tensor, put into every `stride`-th row from `dst` on.
#[derive(Clone)]
struct Segment<'a> {
    origin: Origin<'a>,
    first: u64,
    rows: u64,
    dst: u64,
    stride: u64,
}

/// How a matrix is kept on the GPU.
struct Layout {
    /// Rows of each part, in order.
    parts: Vec<(u32, WeightFormat)>,
    activation: Activation,
    input: quantized::Input,
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
        Self::with_quantization(source, table, Quantization::default(), policy)
    }

    /// The same with modules that are stored quantised.
    pub fn with_quantization(
        source: Arc<dyn ByteSource>,
        table: TensorTable,
        quantization: Quantization,
        policy: WeightPolicy,
    ) -> Self {
        let (used, notes) = (Mutex::default(), Mutex::new(quantization.notes.clone()));
        let (staged, placed) = (Mutex::default(), Mutex::default());
        let checkpoint = Checkpoint { source, table, quantization, policy, used, notes, staged, placed };
        Self { checkpoint: Arc::new(checkpoint), scope: String::new() }
    }

    /// The files.
    pub fn source(&self) -> &dyn ByteSource {
        &*self.checkpoint.source
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

    /// Whether there is a tensor, or a module that stores it quantised.
    pub fn has(&self, name: &str) -> bool {
        self.has_tensor(name) || self.stored(name).is_some()
    }

    /// Whether there is a tensor of that very name.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.info(name).is_some()
    }

    /// How the module of a `weight` is stored, if it is quantised.
    pub fn stored(&self, name: &str) -> Option<&Stored> {
        let full = self.full(name);
        self.checkpoint.quantization.modules.get(full.strip_suffix(".weight")?)
    }

    /// The quantised module of a `weight`, if it is quantised. `k`: its columns, where they are known.
    ///
    /// # Errors
    /// As [`Stored::open`].
    pub async fn module(&self, name: &str, k: Option<u32>) -> Result<Option<QuantModule>, LoadError> {
        let Some(stored) = self.stored(name) else { return Ok(None) };
        let full = self.full(name);
        let module = full.strip_suffix(".weight").unwrap_or(&full).to_owned();
        stored.open(&Self { checkpoint: self.checkpoint.clone(), scope: module }, k).await.map(Some)
    }

    /// Bytes of matrices and tensors on the GPU so far.
    pub fn placed_bytes(&self) -> u64 {
        self.checkpoint.placed.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Numbers in matrices and tensors on the GPU so far, however few bits each has.
    pub fn placed_parameters(&self) -> u64 {
        self.checkpoint.placed.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    fn place(&self, bytes: u64, parameters: u64) {
        let mut placed = self.checkpoint.placed.lock().unwrap_or_else(PoisonError::into_inner);
        placed.0 += bytes;
        placed.1 += parameters;
    }

    fn note(&self, note: String) {
        tracing::warn!("{note}");
        self.checkpoint.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
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
        let notes = self.checkpoint.notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Report { unused: unused.filter(|n| !used.contains(*n) && !superfluous(n)).cloned().collect(), notes }
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

    pub(crate) fn find(&self, name: &str) -> Result<&TensorInfo, LoadError> {
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
        self.place(4 * values.len() as u64, values.len() as u64);
        Ok(Tensor::from_f32(gpu, &values, shape)?)
    }

    /// A vector of `n` elements on the GPU, in f32, put together from 1-D tensors as a matrix is from rows.
    ///
    /// # Errors
    /// As [`Weights::f32`]; another number of elements.
    pub async fn vector(&self, gpu: &Gpu, rows: impl Into<Rows<'_>>, n: u32) -> Result<Tensor, LoadError> {
        let values = self.vector_f32(rows, n).await?;
        self.place(4 * values.len() as u64, values.len() as u64);
        Ok(Tensor::from_f32(gpu, &values, &[n])?)
    }

    /// As [`Weights::vector`], on the host.
    ///
    /// # Errors
    /// As [`Weights::vector`].
    pub async fn vector_f32(&self, rows: impl Into<Rows<'_>>, n: u32) -> Result<Vec<f32>, LoadError> {
        let segments = self.segments(&rows.into(), n, None).await?;
        let mut out = vec![0.0; n as usize];
        for s in &segments {
            let Origin::Dense(info) = s.origin else { continue };
            let size = info.dtype.bits() / 8;
            let range = info.range.start + s.first * size..info.range.start + (s.first + s.rows) * size;
            let bytes = self.checkpoint.source.read(&info.file, range).await?;
            let values = to_f32(info, s.first, &bytes)?;
            for (slot, v) in out[s.dst as usize..].iter_mut().step_by(s.stride as usize).zip(values) {
                *slot = v;
            }
        }
        Ok(out)
    }

    /// The matrix `[n, k]` of a linear layer on the GPU, in the checkpoint's format (dense parts that differ: f32)
    /// unless the policy forces one. Parts of a [`Rows::Concat`] may differ in format. Where quantised rows cannot
    /// become one matrix as they are (other formats in alternate rows, other permutations of x), they are decoded to
    /// f32, which is exact, and the report says so.
    ///
    /// # Errors
    /// As [`Weights::f32`]; another number of rows; values that the forced type cannot hold; layouts that are not
    /// what the configuration says; modules whose activations or transforms of x differ.
    pub async fn matrix(
        &self,
        gpu: &Gpu,
        rows: impl Into<Rows<'_>>,
        n: u32,
        k: u32,
    ) -> Result<Matrix, LoadError> {
        let segments = self.segments(&rows.into(), n, Some(k)).await?;
        let layout = self.layout(&segments, n, self.policy())?;
        self.upload(gpu, &segments, layout, k).await
    }

    /// A matrix whose rows are looked up (embeddings): quantised only if the checkpoint stores it so.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub async fn table_matrix(
        &self,
        gpu: &Gpu,
        rows: impl Into<Rows<'_>>,
        n: u32,
        k: u32,
    ) -> Result<Matrix, LoadError> {
        let segments = self.segments(&rows.into(), n, Some(k)).await?;
        let quantised = segments.iter().any(|s| s.origin.quant().is_some());
        let dense = |f: &WeightFormat| !quantised && !matches!(f, WeightFormat::Quant(_));
        let force = self.policy().force.filter(dense);
        let layout = self.layout(&segments, n, WeightPolicy { force, activations: None })?;
        self.upload(gpu, &segments, layout, k).await
    }

    async fn upload(
        &self,
        gpu: &Gpu,
        segments: &[Segment<'_>],
        layout: Layout,
        k: u32,
    ) -> Result<Matrix, LoadError> {
        let mut matrix = Matrix::alloc_parts(gpu, &layout.parts, k)?;
        let mut row0 = 0;
        for (rows, format) in layout.parts {
            // What is only recorded needs no contents.
            let chunks = chunks(rows, k, CHUNK).filter(|_| !gpu.is_recording_only());
            for chunk in chunks {
                let chunk = row0 + chunk.start..row0 + chunk.end;
                let bytes = match format {
                    WeightFormat::Quant(format) => {
                        let (codes, scales) = self.packed_rows(segments, &chunk, k, format).await?;
                        matrix.write_packed_rows(gpu, chunk.start, &codes, &scales)?;
                        4 * (codes.len() + scales.len())
                    }
                    dense => {
                        let bytes = self.rows(segments, &chunk, k, dense).await?;
                        matrix.write_rows(gpu, chunk.start, &bytes)?;
                        bytes.len()
                    }
                };
                self.flush(gpu, bytes as u64).await?;
            }
            row0 += rows;
        }
        matrix.input = input(gpu, layout.activation, &layout.input, k)?;
        self.place(matrix.bytes(), u64::from(row0) * u64::from(k));
        Ok(matrix)
    }

    /// The same rows on the host, in f32: what a reference computation needs. Quantised rows are decoded; transforms
    /// of x other than permutations are not undone.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub async fn matrix_f32(&self, rows: impl Into<Rows<'_>>, n: u32, k: u32) -> Result<Vec<f32>, LoadError> {
        let segments = self.segments(&rows.into(), n, Some(k)).await?;
        for s in &segments {
            if let Origin::Dense(info) = s.origin {
                float_type(info)?;
            }
        }
        let bytes = self.rows(&segments, &(0..n), k, WeightFormat::F32).await?;
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

    /// Formats, activations and transforms of a matrix `[n, k]`.
    fn layout(&self, segments: &[Segment<'_>], n: u32, policy: WeightPolicy) -> Result<Layout, LoadError> {
        let names = || segments.iter().map(|s| s.origin.name()).collect::<Vec<_>>().join(", ");
        let quantised: Vec<&QuantModule> = segments.iter().filter_map(|s| s.origin.quant()).collect();
        let (activation, mut input) = transforms(segments, &quantised)?;
        // Rows in f32 of what cannot be had otherwise.
        let mut decode = false;
        if policy.force == Some(WeightFormat::F32) {
            decode = !quantised.is_empty();
        } else if let Some(module) = quantised.iter().find(|m| !m.is_packable()) {
            self.note(format!(
                "{}: groups of other sizes than kernels read (format {}); decoded to f32",
                names(),
                module.format
            ));
            decode = true;
        } else if input.is_none() {
            self.note(format!("{}: x is permuted in different ways; decoded to f32", names()));
            decode = true;
        }
        let interleaved = segments.iter().any(|s| s.stride > 1);
        let mut dense = None;
        for s in segments {
            if let Origin::Dense(info) = s.origin {
                let stored = float_type(info)?;
                dense = Some(dense.map_or(stored, |t| if t == stored { t } else { WeightFormat::F32 }));
            }
        }
        let mut formats: Vec<WeightFormat> = Vec::new();
        for s in segments {
            formats.push(match (&s.origin, policy.force) {
                (Origin::Quant(..), _) if decode => WeightFormat::F32,
                (Origin::Quant(module, name), Some(force)) if force != module.format.into() => {
                    let want = format!("left out, f32 (decoded exactly) or {}", module.format);
                    let (tensor, got) = (name.clone(), module.format.to_string());
                    return Err(LoadError::Requantize { tensor, got, want });
                }
                (Origin::Quant(module, _), _) => module.format.into(),
                (Origin::Dense(info), Some(WeightFormat::Quant(format))) => {
                    let head = info.name.ends_with("lm_head.weight");
                    WeightFormat::Quant(if head && format.code.bits() < 8 { Format::Q8_0 } else { format })
                }
                (Origin::Dense(_), Some(force)) => force,
                (Origin::Dense(_), None) => dense.unwrap_or(WeightFormat::F32),
            });
        }
        // One format for all if there is one that holds all exactly; alternate rows must have one.
        let unified = formats.iter().skip(1).try_fold(formats[0], |a, &b| match (a, b) {
            (a, b) if a == b => Some(a),
            (WeightFormat::Quant(a), WeightFormat::Quant(b)) => quantized::unify(a, b).map(Into::into),
            _ => None,
        });
        match unified {
            Some(format) => formats.fill(format),
            None if interleaved => {
                if !quantised.is_empty() {
                    self.note(format!("{}: formats differ in alternate rows; decoded to f32", names()));
                }
                decode = true;
                formats.fill(WeightFormat::F32);
            }
            None => {}
        }
        let mut parts: Vec<(u32, WeightFormat)> = Vec::new();
        if interleaved || unified.is_some() {
            parts.push((n, formats[0]));
        } else {
            for (s, format) in segments.iter().zip(formats) {
                match parts.last_mut() {
                    Some((rows, last)) if *last == format => *rows += s.rows as u32,
                    _ => parts.push((s.rows as u32, format)),
                }
            }
        }
        // Decoded rows are those of x as it comes.
        if decode && input.as_ref().is_none_or(|i| matches!(i.mix, Mix::Permute(_))) {
            input = Some(quantized::Input::default());
        }
        let activation = activation_of(&parts, activation, policy, &names)?;
        Ok(Layout { parts, activation, input: input.unwrap_or_default() })
    }

    /// What a matrix (`k` is its number of columns) or vector is read from.
    async fn origin(&self, name: &str, k: Option<u32>) -> Result<Origin<'_>, LoadError> {
        if let (Some(k), false) = (k, self.has_tensor(name) && self.stored(name).is_none())
            && let Some(module) = self.module(name, Some(k)).await?
        {
            return Ok(Origin::Quant(Arc::new(module), self.full(name)));
        }
        self.find(name).map(Origin::Dense)
    }

    /// Where the rows come from; together they fill `n` rows of `k` (1-D tensors if `k` is `None`) exactly once.
    async fn segments(&self, rows: &Rows<'_>, n: u32, k: Option<u32>) -> Result<Vec<Segment<'_>>, LoadError> {
        let n = u64::from(n);
        let columns = k;
        let dims = |rows: u64| [Some(rows), k.map(u64::from)].into_iter().flatten().collect::<Vec<_>>();
        let (halves, odd) = (n / 2, !n.is_multiple_of(2));
        match *rows {
            Rows::All(name) => {
                let origin = self.origin(name, columns).await?;
                origin.check_shape(&dims(n))?;
                Ok(vec![Segment { origin, first: 0, rows: n, dst: 0, stride: 1 }])
            }
            Rows::Concat(names) => {
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
            Rows::Interleave(first, second) => {
                let (a, b) = (self.origin(first, columns).await?, self.origin(second, columns).await?);
                if odd {
                    return Err(mis_shaped(a.name().to_owned(), a.shape(), dims(n)));
                }
                a.check_shape(&dims(halves))?;
                b.check_shape(&dims(halves))?;
                let half = |origin, dst| Segment { origin, first: 0, rows: halves, dst, stride: 2 };
                Ok(vec![half(a, 0), half(b, 1)])
            }
            Rows::ConcatHalvesInterleaved(name) => {
                let origin = self.origin(name, columns).await?;
                origin.check_shape(&dims(n))?;
                if odd {
                    return Err(mis_shaped(origin.name().to_owned(), origin.shape(), dims(n + 1)));
                }
                let half =
                    |first, dst| Segment { origin: origin.clone(), first, rows: halves, dst, stride: 2 };
                Ok(vec![half(0, 0), half(halves, 1)])
            }
            Rows::Slice { name, ref rows } => {
                let origin = self.origin(name, columns).await?;
                let (start, end) = (u64::from(rows.start), u64::from(rows.end));
                origin.check_shape(&dims(origin.rows().max(end)))?;
                if start > end || end - start != n {
                    let tensor = format!("{}[{start}..{end}]", origin.name());
                    return Err(mis_shaped(tensor, vec![end.saturating_sub(start)], dims(n)));
                }
                Ok(vec![Segment { origin, first: start, rows: n, dst: 0, stride: 1 }])
            }
        }
    }

    /// Some rows of the matrix, packed elements of a dense format.
    async fn rows(
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
    async fn packed_rows(
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
            let (c, z) = match &s.origin {
                Origin::Dense(info) => {
                    let bytes = self.dense_rows(info, stored.clone(), k).await?;
                    let values = to_f32(info, stored.start * u64::from(k), &bytes)?;
                    pack(format, values.chunks_exact(k as usize).map(|row| quantize_row(format, row)))
                }
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

    async fn dense_rows(&self, info: &TensorInfo, rows: Range<u64>, k: u32) -> Result<Vec<u8>, LoadError> {
        let stored = u64::from(k) * info.dtype.bits() / 8;
        let range = info.range.start + rows.start * stored..info.range.start + rows.end * stored;
        self.checkpoint.source.read(&info.file, range).await
    }
}

impl Segment<'_> {
    /// Source rows, less `first`, whose place `dst + j * stride` lies in `rows`.
    fn within(&self, rows: &Range<u32>) -> Option<(u64, u64)> {
        let index = |row: u32| u64::from(row).saturating_sub(self.dst).div_ceil(self.stride).min(self.rows);
        let (from, to) = (index(rows.start), index(rows.end));
        (from < to).then_some((from, to))
    }

    /// Place of source row `first + j` among `rows`.
    fn place(&self, j: u64, rows: &Range<u32>) -> usize {
        (self.dst + j * self.stride - u64::from(rows.start)) as usize
    }
}

fn pack(format: Format, rows: impl Iterator<Item = Row>) -> (Vec<u32>, Vec<u32>) {
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for row in rows {
        quant::pack_row(format, &row, &mut codes, &mut scales);
    }
    (codes, scales)
}

/// Transforms of x, on the GPU.
fn input(
    gpu: &Gpu,
    activation: Activation,
    input: &quantized::Input,
    k: u32,
) -> Result<girih_ops::Input, LoadError> {
    let square = |(n, values): &(u32, Vec<f32>)| Tensor::from_f32(gpu, values, &[*n, *n]);
    Ok(girih_ops::Input {
        activation,
        scale: input.scale.as_ref().map(|values| Tensor::from_f32(gpu, values, &[k])).transpose()?,
        mix: match &input.mix {
            Mix::None => girih_ops::Mix::None,
            Mix::Hadamard { block } => girih_ops::Mix::Hadamard { block: *block },
            Mix::Kronecker { p1, p2 } => girih_ops::Mix::Kronecker { p1: square(p1)?, p2: square(p2)? },
            Mix::Permute(perm) => girih_ops::Mix::Permute(Tensor::from_u32(gpu, perm, &[k])?),
        },
    })
}

/// Activation and transform of x that modules agree upon; no transform if they permute x in different ways.
fn transforms(
    segments: &[Segment<'_>],
    quantised: &[&QuantModule],
) -> Result<(Activation, Option<quantized::Input>), LoadError> {
    let Some(first) = quantised.first() else {
        return Ok((Activation::Float, Some(quantized::Input::default())));
    };
    let names = || segments.iter().map(|s| s.origin.name()).collect::<Vec<_>>().join(", ");
    let list = |of: &dyn Fn(&QuantModule) -> String| {
        let each = segments.iter().map(|s| s.origin.quant().map_or_else(|| "none".to_owned(), of));
        each.collect::<Vec<_>>().join(", ")
    };
    let mixed = quantised.len() < segments.len();
    let differs = |what, got| Err(LoadError::Fused { modules: names(), what, got });
    if quantised.iter().any(|m| m.activation != first.activation)
        || mixed && first.activation != Activation::Float
    {
        return differs("activations", list(&|m| m.activation.to_string()));
    }
    let none = quantized::Input::default();
    if quantised.iter().all(|m| m.input == first.input) && !(mixed && first.input != none) {
        return Ok((first.activation, Some(first.input.clone())));
    }
    let permutes =
        |m: &&QuantModule| m.input.scale.is_none() && matches!(m.input.mix, Mix::None | Mix::Permute(_));
    if quantised.iter().all(permutes) {
        return Ok((first.activation, None));
    }
    differs("transforms of x", list(&|m| m.input.describe()))
}

/// How x enters the product with these parts.
fn activation_of(
    parts: &[(u32, WeightFormat)],
    stored: Activation,
    policy: WeightPolicy,
    names: &dyn Fn() -> String,
) -> Result<Activation, LoadError> {
    let all_quantised = parts.iter().all(|(_, f)| matches!(f, WeightFormat::Quant(_)));
    let activation = policy.activations.unwrap_or(stored);
    if !all_quantised || activation == Activation::Float {
        return Ok(Activation::Float);
    }
    for (_, format) in parts {
        let WeightFormat::Quant(format) = format else { continue };
        let want = if format.code == Code::E4m3 {
            "use float activations with FP8 weights"
        } else if !is_integer(*format) {
            "groups must be 16 channels, a multiple of 32, or the row"
        } else {
            continue;
        };
        let (got, activation) = (format.to_string(), activation.to_string());
        return Err(LoadError::Activations { tensor: names(), got, activation, want });
    }
    Ok(activation)
}

fn chunks(n: u32, k: u32, bytes: u64) -> impl Iterator<Item = Range<u32>> {
    // 8 bytes cover f64, the widest type that is read.
    let rows = (bytes / (8 * u64::from(k)).max(1)).clamp(1, u64::from(n).max(1)) as u32;
    (0..n).step_by(rows as usize).map(move |first| first..first.saturating_add(rows).min(n))
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
fn float_type(info: &TensorInfo) -> Result<WeightFormat, LoadError> {
    match info.dtype {
        StoredType::F32 | StoredType::F64 => Ok(WeightFormat::F32),
        StoredType::F16 => Ok(WeightFormat::F16),
        StoredType::BF16 => Ok(WeightFormat::Bf16),
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
    let checked = |i: usize, v: f32, back: f32| {
        if back.is_finite() {
            return Ok(());
        }
        let want = if want == WeightFormat::F16 { "F16" } else { "BF16" };
        Err(LoadError::OutOfRange { tensor: info.name.clone(), index: first + i as u64, got: v, want })
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
            let segments = block_on(w.segments(&rows, n, Some(3))).expect("fits");
            let whole = block_on(w.rows(&segments, &(0..n), 3, WeightFormat::F16)).expect("loads");
            for size in 1..=n {
                let split: Vec<u8> = chunks(n, 3, u64::from(size) * 24)
                    .flat_map(|r| block_on(w.rows(&segments, &r, 3, WeightFormat::F16)).expect("loads"))
                    .collect();
                assert!(split == whole, "{rows:?} in chunks of {size}");
            }
        }
    }

    #[test]
    fn types() {
        let w = two().scope("m");
        let type_of = |names: &[&str]| {
            let n = 2 * names.len() as u32;
            let segments = block_on(w.segments(&Rows::Concat(names), n, Some(2))).expect("fits");
            let layout = w.layout(&segments, n, WeightPolicy::default()).expect("float");
            assert_eq!(layout.parts.len(), 1);
            layout.parts[0].1
        };
        assert_eq!(type_of(&["a", "b"]), WeightFormat::Bf16);
        assert_eq!(type_of(&["a", "h"]), WeightFormat::F32);
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
            let segments = block_on(w.segments(&Rows::All("w"), 2, Some(2))).expect("fits");
            for want in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16] {
                let error = block_on(w.rows(&segments, &(1..2), 2, want)).expect_err("NaN");
                assert!(matches!(error, LoadError::NotFinite { index: 2, .. }), "{dtype:?}: {error}");
            }
        }
        let big = weights(&[("w", StoredType::BF16, &[1, 2], &[1.0, 1e10])], WeightPolicy::default());
        let segments = block_on(big.segments(&Rows::All("w"), 1, Some(2))).expect("fits");
        let error = block_on(big.rows(&segments, &(0..1), 2, WeightFormat::F16)).expect_err("too large");
        assert!(matches!(error, LoadError::OutOfRange { index: 1, want: "F16", .. }), "{error}");
    }
}

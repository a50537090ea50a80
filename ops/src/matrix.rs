//! Weight matrices as kernels read them.

use girih_kernels::matmul;
use girih_kernels::quant::{pack_row, quantize_row};
use girih_kernels::{Buffer, Gpu};

pub use girih_kernels::quant::{Format, QuantActivation, WeightFormat};

use crate::{OpError, Tensor};

/// Element type of a dense weight matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightType {
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
}

impl WeightType {
    /// Bytes of one element.
    pub fn bytes(self) -> u32 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

impl From<WeightType> for WeightFormat {
    fn from(weight_type: WeightType) -> Self {
        match weight_type {
            WeightType::F32 => Self::F32,
            WeightType::F16 => Self::F16,
            WeightType::Bf16 => Self::Bf16,
        }
    }
}

/// Rows `row0 .. row0 + rows` of a matrix. Parts of one matrix may differ in format.
#[derive(Clone, Debug)]
pub struct Part {
    /// Elements, each row zero-padded to a multiple of 8, or codes.
    pub buffer: Buffer,
    /// Scales of quantised rows.
    pub scales: Option<Buffer>,
    /// How the rows lie in memory.
    pub format: WeightFormat,
    /// First row.
    pub row0: u32,
    /// Number of rows.
    pub rows: u32,
}

impl Part {
    /// The part as kernels take it.
    pub(crate) fn view(&self) -> matmul::Part<'_> {
        let Self { buffer, scales, format, row0, rows } = self;
        matmul::Part { buffer, scales: scales.as_ref(), format: *format, row0: *row0, rows: *rows }
    }
}

/// How channels of x are mixed before the product; the weights are mixed inversely, so that the product is the same.
#[derive(Clone, Debug, Default)]
pub enum Mix {
    /// Not at all.
    #[default]
    None,
    /// `x' = x Hᵀ / sqrt(n)`, each run of `block` channels by itself.
    Hadamard {
        /// Channels of a block; 0 for the whole row.
        block: u32,
    },
    /// A row as X `[n1, n2]`: `X' = P1ᵀ X P2`.
    Kronecker {
        /// `[n1, n1]`
        p1: Tensor,
        /// `[n2, n2]`
        p2: Tensor,
    },
    /// `x'[j] = x[perm[j]]`, u32 `[K]`.
    Permute(Tensor),
}

/// What a matrix wants done with x before the product: `quantise(mix(scale · x))`.
#[derive(Clone, Debug, Default)]
pub struct MatrixInput {
    /// How activations enter the product.
    pub activation: QuantActivation,
    /// Factors of the channels `[K]`.
    pub scale: Option<Tensor>,
    /// Mixing of channels.
    pub mix: Mix,
}

impl MatrixInput {
    /// Whether x enters the product as it is.
    pub fn is_plain(&self) -> bool {
        self.activation == QuantActivation::Float && self.scale.is_none() && matches!(self.mix, Mix::None)
    }
}

/// A weight matrix W `[N, K]`, row-major, split by rows into parts that fit the device's binding limit. The matrices of E
/// experts `[E, N / E, K]` are one whose parts hold whole experts.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Rows N, of all experts.
    pub n: u32,
    /// Columns K.
    pub k: u32,
    /// Experts E; 1 for a matrix that every row of x is multiplied with.
    pub experts: u32,
    /// Row ranges, ascending, together 0..N.
    pub parts: Vec<Part>,
    /// What happens to x before the product.
    pub input: MatrixInput,
}

fn value(what: &'static str, got: f64, want: String) -> OpError {
    OpError::Value { op: "matrix", what, got, want }
}

impl Matrix {
    /// An uninitialised matrix of one format.
    ///
    /// # Errors
    /// As [`Matrix::alloc_parts`].
    pub fn alloc(gpu: &Gpu, format: impl Into<WeightFormat>, n: u32, k: u32) -> Result<Self, OpError> {
        Self::alloc_parts(gpu, &[(n, format.into())], k)
    }

    /// An uninitialised matrix whose first rows have the first format, the next ones the second, and so on. Each run of
    /// rows is split so that codes and scales of a part fit a binding; its parts are multiples of 64 rows, except the
    /// last.
    ///
    /// # Errors
    /// A row that exceeds a binding, no rows or columns, a format that is none, memory that is exhausted.
    pub fn alloc_parts(gpu: &Gpu, runs: &[(u32, WeightFormat)], k: u32) -> Result<Self, OpError> {
        Self::alloc_runs(gpu, runs, 1, k)
    }

    /// An uninitialised matrix of experts: that of each has `[n, k]`. `runs`: experts with the same format, which lie in as few
    /// parts as bindings allow.
    ///
    /// # Errors
    /// An expert that exceeds a binding, and as [`Matrix::alloc_parts`].
    pub fn alloc_experts(gpu: &Gpu, runs: &[(u32, WeightFormat)], [n, k]: [u32; 2]) -> Result<Self, OpError> {
        let experts = runs.iter().fold(0u32, |all, &(experts, _)| all.saturating_add(experts));
        let mut rows = Vec::with_capacity(runs.len());
        for &(experts, format) in runs {
            let Some(run) = experts.checked_mul(n) else {
                let got = f64::from(experts) * f64::from(n);
                return Err(value("rows of all experts", got, "below 2^32".into()));
            };
            rows.push((run, format));
        }
        Self::alloc_runs(gpu, &rows, experts, k)
    }

    /// The experts of several matrices as those of one, in their order, without a copy: what layers that share their experts
    /// route to (ReXMoE, 2510.17483).
    ///
    /// # Errors
    /// No matrix, matrices of other rows or columns of an expert, or whose x is scaled, mixed or quantised; 2^32 rows or more.
    pub fn pool(of: &[&Self]) -> Result<Self, OpError> {
        let Some(first) = of.first() else {
            return Err(value("matrices of a pool", 0.0, "at least 1".into()));
        };
        let mut pool = Self { n: 0, experts: 0, parts: Vec::new(), ..(*first).clone() };
        for matrix in of {
            for (what, got, want) in [
                ("rows of an expert", matrix.expert_rows(), first.expert_rows()),
                ("columns", matrix.k, first.k),
            ] {
                if got != want {
                    return Err(value(what, got.into(), format!("{want}, as the first of the pool has")));
                }
            }
            if of.len() > 1 && !matrix.input.is_plain() {
                return Err(OpError::Unsupported {
                    op: "matrix",
                    what: "a pool whose x is transformed".into(),
                });
            }
            let Some(n) = pool.n.checked_add(matrix.n) else {
                return Err(value("rows", f64::from(pool.n) + f64::from(matrix.n), "below 2^32".into()));
            };
            let row0 = pool.n;
            pool.parts.extend(matrix.parts.iter().cloned().map(|p| Part { row0: p.row0 + row0, ..p }));
            (pool.n, pool.experts) = (n, pool.experts + matrix.experts);
        }
        Ok(pool)
    }

    /// Rows of each expert.
    pub fn expert_rows(&self) -> u32 {
        self.n / self.experts.max(1)
    }

    fn alloc_runs(gpu: &Gpu, runs: &[(u32, WeightFormat)], experts: u32, k: u32) -> Result<Self, OpError> {
        const ROW_ALIGN: u64 = 64;
        let all = runs.iter().map(|&(rows, _)| u64::from(rows)).sum::<u64>();
        // What parts hold a multiple of: whole experts, or rows of several tiles.
        let step = if experts == 1 { ROW_ALIGN } else { (all / u64::from(experts.max(1))).max(1) };
        let limit = gpu.caps().binding_bytes.min(gpu.caps().buffer_bytes);
        let mut parts = Vec::new();
        let mut n = 0u32;
        for &(run, format) in runs {
            if let WeightFormat::Quant(format) = format {
                format.check()?;
            }
            let (row_bytes, scale_bytes) = (format.row_bytes(k), format.scale_row_bytes(k));
            let longest = row_bytes.max(scale_bytes);
            let max_rows = limit / longest.max(1) / step * step;
            if max_rows == 0 || run == 0 || k == 0 {
                let what = if experts == 1 { "64 rows" } else { "an expert" };
                let want = format!("1 to {} ({what} must fit one binding)", limit / step);
                return Err(value("bytes of a row", longest as f64, want));
            }
            let Some(end) = n.checked_add(run) else {
                return Err(value("rows", f64::from(n) + f64::from(run), "below 2^32".into()));
            };
            while n < end {
                let rows = u64::from(end - n).min(max_rows);
                let scales = if scale_bytes > 0 { Some(gpu.alloc(rows * scale_bytes)?) } else { None };
                let buffer = gpu.alloc(rows * row_bytes)?;
                parts.push(Part { buffer, scales, format, row0: n, rows: rows as u32 });
                n += rows as u32;
            }
        }
        if n == 0 {
            return Err(value("rows", 0.0, "at least 1".into()));
        }
        Ok(Self { n, k, experts, parts, input: MatrixInput::default() })
    }

    /// Writes dense rows starting at `row`, given as packed elements of their part's type without padding.
    ///
    /// # Errors
    /// Rows that do not lie inside, bytes that are not whole rows, rows of codes.
    pub fn write_rows(&self, gpu: &Gpu, row: u32, bytes: &[u8]) -> Result<(), OpError> {
        let mut rest = bytes;
        let mut plan = Vec::new();
        for part in self.parts.iter().filter(|p| row < p.row0 + p.rows) {
            if rest.is_empty() {
                break;
            }
            let Some(element) = part.format.element_bytes() else {
                return Err(OpError::Unsupported {
                    op: "matrix",
                    what: "dense rows in a quantised part".into(),
                });
            };
            let packed = (self.k as usize).saturating_mul(element as usize);
            let first = row.max(part.row0) - part.row0;
            let rows = (rest.len() / packed).min((part.rows - first) as usize);
            let (source, tail) = rest.split_at(rows * packed);
            plan.push((part, first, source, packed));
            rest = tail;
            if rows < (part.rows - first) as usize {
                break;
            }
        }
        if !rest.is_empty() {
            let want = format!("whole rows of {} columns within {} rows", self.k, self.n);
            return Err(value("bytes written", bytes.len() as f64, want));
        }
        let mut scratch = Vec::new();
        for (part, first, source, packed) in plan {
            let padded = part.format.row_bytes(self.k) as usize;
            let offset = u64::from(first) * padded as u64;
            if packed == padded {
                gpu.write(&part.buffer, offset, source);
                continue;
            }
            scratch.clear();
            for row in source.chunks_exact(packed) {
                scratch.extend_from_slice(row);
                scratch.resize(scratch.len() + padded - packed, 0);
            }
            gpu.write(&part.buffer, offset, &scratch);
        }
        Ok(())
    }

    /// Writes quantised rows starting at `row`, given as codes and scales in the layout of
    /// [`pack_row`](girih_kernels::quant::pack_row).
    ///
    /// # Errors
    /// Rows that do not lie inside, words that are not whole rows or not as many of codes as of scales, dense rows.
    pub fn write_packed_rows(
        &self,
        gpu: &Gpu,
        row: u32,
        codes: &[u32],
        scales: &[u32],
    ) -> Result<(), OpError> {
        let (mut codes_left, mut scales_left) = (codes, scales);
        let mut plan = Vec::new();
        for part in self.parts.iter().filter(|p| row < p.row0 + p.rows) {
            if codes_left.is_empty() {
                break;
            }
            let WeightFormat::Quant(format) = part.format else {
                return Err(OpError::Unsupported { op: "matrix", what: "codes in a dense part".into() });
            };
            let [code_words, scale_words] =
                [format.code_words(self.k), format.scale_words(self.k)].map(|words| words as usize);
            let first = row.max(part.row0) - part.row0;
            let left = (part.rows - first) as usize;
            let rows = (codes_left.len() / code_words).min(scales_left.len() / scale_words).min(left);
            let (codes, later) = codes_left.split_at(rows * code_words);
            let (scales, scales_later) = scales_left.split_at(rows * scale_words);
            plan.push((part, first, codes, scales));
            (codes_left, scales_left) = (later, scales_later);
            if rows < left {
                break;
            }
        }
        if !codes_left.is_empty() || !scales_left.is_empty() {
            let want = format!("whole rows of codes and as many of scales within {} rows", self.n);
            return Err(value("words written", (codes.len() + scales.len()) as f64, want));
        }
        for (part, first, codes, scales) in plan {
            let at = |row_bytes: u64| u64::from(first) * row_bytes;
            gpu.write(&part.buffer, at(part.format.row_bytes(self.k)), bytemuck::cast_slice(codes));
            if let Some(buffer) = &part.scales {
                gpu.write(buffer, at(part.format.scale_row_bytes(self.k)), bytemuck::cast_slice(scales));
            }
        }
        Ok(())
    }

    /// Uploads a whole matrix from f32 values, rounded to the format: to nearest, by
    /// [`quantize_row`](girih_kernels::quant::quantize_row) where it is quantised.
    ///
    /// # Errors
    /// A number of values that is not N · K, and as [`Matrix::alloc`].
    pub fn from_f32(
        gpu: &Gpu,
        data: &[f32],
        n: u32,
        k: u32,
        format: impl Into<WeightFormat>,
    ) -> Result<Self, OpError> {
        if data.len() as u64 != u64::from(n) * u64::from(k) {
            let want = format!("{n} rows of {k} columns");
            return Err(value("number of elements", data.len() as f64, want));
        }
        let format = format.into();
        let matrix = Self::alloc(gpu, format, n, k)?;
        let bytes: Vec<u8> = match format {
            WeightFormat::F32 => bytemuck::cast_slice(data).to_vec(),
            WeightFormat::F16 => data.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            WeightFormat::Bf16 => data.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
            WeightFormat::Quant(format) => {
                let (mut codes, mut scales) = (Vec::new(), Vec::new());
                for row in data.chunks_exact(k as usize) {
                    pack_row(format, &quantize_row(format, row), &mut codes, &mut scales);
                }
                matrix.write_packed_rows(gpu, 0, &codes, &scales)?;
                return Ok(matrix);
            }
        };
        matrix.write_rows(gpu, 0, &bytes)?;
        Ok(matrix)
    }

    /// The same weights with another treatment of x.
    #[must_use]
    pub fn with_input(self, input: MatrixInput) -> Self {
        Self { input, ..self }
    }

    /// Bytes of GPU memory.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|p| p.buffer.size() + p.scales.as_ref().map_or(0, Buffer::size)).sum()
    }
}

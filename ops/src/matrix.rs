//! Weight matrices as kernels read them.

use girih_kernels::{Buffer, Gpu};

use crate::OpError;

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

/// Rows `row0 .. row0 + rows` of a matrix.
#[derive(Clone, Debug)]
pub struct Part {
    /// Memory: `rows * k_stride` elements.
    pub buffer: Buffer,
    /// First row.
    pub row0: u32,
    /// Number of rows.
    pub rows: u32,
}

/// A weight matrix W `[N, K]`, row-major, each row zero-padded to a multiple of 8 elements (16 bytes of f16). It
/// is split by rows into parts that fit the device's binding limit.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Element type.
    pub weight_type: WeightType,
    /// Rows N.
    pub n: u32,
    /// Columns K.
    pub k: u32,
    /// Elements from one row to the next: K rounded up to a multiple of 8.
    pub k_stride: u32,
    /// Row ranges, ascending, together 0..N.
    pub parts: Vec<Part>,
}

impl Matrix {
    /// An uninitialised matrix, split so that each part fits a binding. Rows of a part are a multiple of
    /// `row_align` (except in the last part).
    ///
    /// # Errors
    /// A row that exceeds a binding, memory that is exhausted.
    pub fn alloc(gpu: &Gpu, weight_type: WeightType, n: u32, k: u32) -> Result<Self, OpError> {
        const ROW_ALIGN: u64 = 64;
        let k_stride = k.next_multiple_of(8);
        let row_bytes = u64::from(k_stride) * u64::from(weight_type.bytes());
        let limit = gpu.caps().binding_bytes.min(gpu.caps().buffer_bytes);
        let max_rows = limit / row_bytes.max(1) / ROW_ALIGN * ROW_ALIGN;
        if max_rows == 0 || n == 0 || k == 0 {
            let want = format!("1 to {} (64 rows must fit one binding)", limit / ROW_ALIGN);
            return Err(OpError::Value { op: "matrix", what: "bytes of a row", got: row_bytes as f64, want });
        }
        let mut parts = Vec::new();
        let mut row0 = 0;
        while row0 < n {
            let rows = u64::from(n - row0).min(max_rows) as u32;
            parts.push(Part { buffer: gpu.alloc(u64::from(rows) * row_bytes)?, row0, rows });
            row0 += rows;
        }
        Ok(Self { weight_type, n, k, k_stride, parts })
    }

    /// Writes rows starting at `row`, given as packed elements of the matrix's type without padding.
    ///
    /// # Errors
    /// Rows that do not lie inside, bytes that are not whole rows.
    pub fn write_rows(&self, gpu: &Gpu, row: u32, bytes: &[u8]) -> Result<(), OpError> {
        let size = self.weight_type.bytes() as usize;
        let (packed, padded) = (self.k as usize * size, self.k_stride as usize * size);
        let rows = bytes.len() / packed;
        if !bytes.len().is_multiple_of(packed) || u64::from(row) + rows as u64 > u64::from(self.n) {
            let want = format!("whole rows of {packed} bytes within {} rows", self.n);
            return Err(OpError::Value {
                op: "matrix",
                what: "bytes written",
                got: bytes.len() as f64,
                want,
            });
        }
        let mut scratch = Vec::new();
        for part in &self.parts {
            let first = row.max(part.row0);
            let last = (row + rows as u32).min(part.row0 + part.rows);
            if first >= last {
                continue;
            }
            let source = &bytes[(first - row) as usize * packed..(last - row) as usize * packed];
            let offset = u64::from(first - part.row0) * padded as u64;
            if packed == padded {
                gpu.write(&part.buffer, offset, source);
            } else {
                scratch.clear();
                for row in source.chunks_exact(packed) {
                    scratch.extend_from_slice(row);
                    scratch.resize(scratch.len() + padded - packed, 0);
                }
                gpu.write(&part.buffer, offset, &scratch);
            }
        }
        Ok(())
    }

    /// Uploads a whole matrix from f32 values, rounded to `weight_type`.
    ///
    /// # Errors
    /// As [`Matrix::alloc`] and [`Matrix::write_rows`].
    pub fn from_f32(
        gpu: &Gpu,
        data: &[f32],
        n: u32,
        k: u32,
        weight_type: WeightType,
    ) -> Result<Self, OpError> {
        let matrix = Self::alloc(gpu, weight_type, n, k)?;
        let bytes: Vec<u8> = match weight_type {
            WeightType::F32 => bytemuck::cast_slice(data).to_vec(),
            WeightType::F16 => data.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            WeightType::Bf16 => data.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
        };
        matrix.write_rows(gpu, 0, &bytes)?;
        Ok(matrix)
    }

    /// Bytes of GPU memory.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|p| p.buffer.size()).sum()
    }
}

//! Products with ternary matrices of less than one bit a weight.

use girih_kernels::quant::dictionary::{TernaryRows, dictionary};
use girih_kernels::ternary::{Matrix as View, ternary_decode as decode, ternary_gemv as gemv};

use crate::{DType, Frame, Gpu, OpError, Tensor};

/// The dictionary of ternary matrices on a device: 512 KiB, one for all of them.
#[derive(Clone, Debug)]
pub struct TernaryDictionary(Tensor);

impl TernaryDictionary {
    /// Uploads it.
    ///
    /// # Errors
    /// Memory that is exhausted.
    pub fn new(gpu: &Gpu) -> Result<Self, OpError> {
        let words = dictionary().as_flattened();
        Ok(Self(Tensor::from_u32(gpu, words, &[words.len() as u32])?))
    }
}

/// A ternary matrix W `[N, K]` on a device (`QMoE`, 2310.16795): weights are 0 or one of two values of their row.
#[derive(Clone, Debug)]
pub struct TernaryMatrix {
    n: u32,
    k: u32,
    dictionary: Tensor,
    codes: Tensor,
    starts: Tensor,
    levels: Tensor,
}

impl TernaryMatrix {
    /// Uploads a matrix, once it is known to decode.
    ///
    /// # Errors
    /// Rows whose words do not give K weights, parts of other lengths; memory that is exhausted.
    pub fn upload(
        gpu: &Gpu,
        dictionary: &TernaryDictionary,
        rows: &TernaryRows<'_>,
    ) -> Result<Self, OpError> {
        rows.check()?;
        let pair = |of: &[u16]| u32::from(of[0]) | of.get(1).map_or(0, |&high| u32::from(high) << 16);
        let codes: Vec<u32> = rows.codes.chunks(2).map(pair).collect();
        let vector = |words: &[u32]| Tensor::from_u32(gpu, words, &[words.len() as u32]);
        Ok(Self {
            n: rows.n,
            k: rows.k,
            dictionary: dictionary.0.clone(),
            codes: vector(&codes)?,
            starts: vector(rows.starts)?,
            levels: vector(rows.levels)?,
        })
    }

    /// Rows N and columns K.
    pub fn shape(&self) -> [u32; 2] {
        [self.n, self.k]
    }

    /// Bytes of GPU memory, without the dictionary.
    pub fn bytes(&self) -> u64 {
        [&self.codes, &self.starts, &self.levels].map(|t| t.buffer().size()).iter().sum()
    }

    fn view(&self) -> View<'_> {
        View {
            n: self.n,
            k: self.k,
            dictionary: self.dictionary.buffer(),
            codes: self.codes.buffer(),
            starts: self.starts.buffer(),
            levels: self.levels.buffer(),
        }
    }
}

/// The weights of a ternary matrix, exactly: `w[n, k]` is 0 or one of the two values of row n.
///
/// # Shapes
/// → f32 `[N, K]`
///
/// # Errors
/// Sizes over a limit of the device.
pub fn ternary_decode(frame: &mut Frame, w: &TernaryMatrix) -> Result<Tensor, OpError> {
    let values = frame.alloc(&[w.n, w.k], DType::F32)?;
    decode::record(frame.recorder(), w.view(), values.buffer())?;
    Ok(values)
}

/// Product with a ternary matrix, decoded on the way: `y = x · Wᵀ`. Each row of x reads the words of W again: meant for few.
///
/// # Shapes
/// x `[M, K]` → `[M, N]`
///
/// # Errors
/// Shapes or types that do not fit, sizes over a limit of the device.
pub fn ternary_linear(frame: &mut Frame, x: &Tensor, w: &TernaryMatrix) -> Result<Tensor, OpError> {
    let op = "ternary_linear";
    let [m, _] = x.dims(op, "x")?;
    x.expect_dtype(op, "x", DType::F32)?;
    x.expect(op, "x", &[m, w.k])?;
    let y = frame.alloc(&[m, w.n], DType::F32)?;
    gemv::record(frame.recorder(), w.view(), x.buffer(), y.buffer(), m)?;
    Ok(y)
}

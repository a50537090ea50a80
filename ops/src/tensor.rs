//! Shape, element type, memory.

use girih_kernels::{Buffer, Gpu, GpuError, PendingRead};
use std::sync::Arc;

use crate::OpError;
use crate::frame::Lease;

/// Element type of a tensor that operations compute with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 32-bit unsigned integer: token ids, positions.
    U32,
}

/// Number of elements of a shape; `None` if it does not fit 62 bits, so that their bytes fit 64.
pub(crate) fn elements(shape: &[u32]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    let product = shape.iter().try_fold(1u64, |all, &d| all.checked_mul(d.into()));
    product.filter(|&all| all <= u64::MAX / 4)
}

/// A contiguous row-major tensor on the GPU. Clones share the memory.
#[derive(Clone, Debug)]
pub struct Tensor {
    shape: Vec<u32>,
    dtype: DType,
    buffer: Buffer,
    _lease: Option<Arc<Lease>>,
}

impl Tensor {
    /// Wraps a buffer.
    ///
    /// # Errors
    /// A buffer that is too small for the shape.
    pub fn from_buffer(buffer: Buffer, shape: &[u32], dtype: DType) -> Result<Self, OpError> {
        Self::with_lease(buffer, shape, dtype, None)
    }

    pub(crate) fn with_lease(
        buffer: Buffer,
        shape: &[u32],
        dtype: DType,
        lease: Option<Arc<Lease>>,
    ) -> Result<Self, OpError> {
        // On 32 bits, elements that fit a buffer may still be more than a `usize` counts.
        let fits = |&all: &u64| usize::try_from(all).is_ok() && 4 * all <= buffer.size();
        if !elements(shape).as_ref().is_some_and(fits) {
            let want = format!("at most {} bytes", buffer.size());
            return Err(OpError::Shape { op: "tensor", tensor: "buffer", got: shape.to_vec(), want });
        }
        Ok(Self { shape: shape.to_vec(), dtype, buffer, _lease: lease })
    }

    /// Uploads f32 values.
    ///
    /// # Errors
    /// A number of values that is not the shape's, memory that is exhausted.
    pub fn from_f32(gpu: &Gpu, data: &[f32], shape: &[u32]) -> Result<Self, OpError> {
        Self::from_words(gpu, bytemuck::cast_slice(data), shape, DType::F32)
    }

    /// Uploads vectors as ranges of one buffer: what [`linear`](crate::linear) wants of a norm and a bias that it takes along.
    ///
    /// # Errors
    /// Memory that is exhausted.
    pub fn vectors_from_f32<const N: usize>(gpu: &Gpu, vectors: [&[f32]; N]) -> Result<[Self; N], OpError> {
        let align = u64::from(gpu.caps().offset_align).max(16);
        let mut all = 0;
        let places = vectors.map(|vector| {
            let at = all;
            all += (4 * vector.len() as u64).next_multiple_of(align);
            (vector, at)
        });
        let memory = gpu.alloc(all)?;
        let mut tensors = Vec::with_capacity(N);
        for (vector, at) in places {
            gpu.write(&memory, at, bytemuck::cast_slice(vector));
            let range = memory.slice(at, 4 * vector.len() as u64);
            let range = range.unwrap_or_else(|| unreachable!("as long as the sum of what lies in it"));
            tensors.push(Self::from_buffer(range, &[vector.len() as u32], DType::F32)?);
        }
        Ok(tensors.try_into().unwrap_or_else(|_| unreachable!("as many as there were")))
    }

    /// Uploads u32 values.
    ///
    /// # Errors
    /// A number of values that is not the shape's, memory that is exhausted.
    pub fn from_u32(gpu: &Gpu, data: &[u32], shape: &[u32]) -> Result<Self, OpError> {
        Self::from_words(gpu, data, shape, DType::U32)
    }

    fn from_words(gpu: &Gpu, data: &[u32], shape: &[u32], dtype: DType) -> Result<Self, OpError> {
        if elements(shape) != Some(data.len() as u64) {
            let want = format!("of {} elements", data.len());
            return Err(OpError::Shape { op: "upload", tensor: "data", got: shape.to_vec(), want });
        }
        Self::from_buffer(gpu.upload(bytemuck::cast_slice(data))?, shape, dtype)
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[u32] {
        &self.shape
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        // Fits: the shape was checked against the buffer.
        elements(&self.shape).and_then(|all| usize::try_from(all).ok()).unwrap_or(usize::MAX)
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// The same memory under another shape.
    ///
    /// # Errors
    /// Another number of elements.
    pub fn reshape(&self, shape: &[u32]) -> Result<Self, OpError> {
        if elements(shape) != Some(self.len() as u64) {
            let want = format!("of {} elements", self.len());
            return Err(OpError::Shape { op: "reshape", tensor: "x", got: shape.to_vec(), want });
        }
        Ok(Self { shape: shape.to_vec(), ..self.clone() })
    }

    /// The dimensions, if there are `N` of them.
    ///
    /// # Errors
    /// Another number of dimensions.
    pub fn dims<const N: usize>(&self, op: &'static str, tensor: &'static str) -> Result<[u32; N], OpError> {
        self.shape.as_slice().try_into().map_err(|_| OpError::Shape {
            op,
            tensor,
            got: self.shape.clone(),
            want: format!("of rank {N}"),
        })
    }

    /// Checks the whole shape.
    ///
    /// # Errors
    /// Another shape.
    pub fn expect(&self, op: &'static str, tensor: &'static str, want: &[u32]) -> Result<(), OpError> {
        if self.shape == want {
            return Ok(());
        }
        Err(OpError::Shape { op, tensor, got: self.shape.clone(), want: format!("{want:?}") })
    }

    /// Checks the element type.
    ///
    /// # Errors
    /// Another type.
    pub fn expect_dtype(&self, op: &'static str, tensor: &'static str, want: DType) -> Result<(), OpError> {
        if self.dtype == want {
            return Ok(());
        }
        Err(OpError::DType { op, tensor, got: self.dtype, want })
    }

    /// Starts reading the values back, after everything submitted so far.
    pub fn read_later(&self, gpu: &Gpu) -> PendingRead {
        let bytes = (4 * self.len() as u64).max(4);
        gpu.read_later(&self.buffer.slice(0, bytes).unwrap_or_else(|| self.buffer.clone()))
    }

    /// Values on the host, after everything submitted so far.
    ///
    /// # Errors
    /// A device that fails.
    pub async fn to_f32(&self, gpu: &Gpu) -> Result<Vec<f32>, GpuError> {
        Ok(bytemuck::pod_collect_to_vec(&self.read_later(gpu).wait().await?))
    }

    /// Values on the host, after everything submitted so far.
    ///
    /// # Errors
    /// A device that fails.
    pub async fn to_u32(&self, gpu: &Gpu) -> Result<Vec<u32>, GpuError> {
        Ok(bytemuck::pod_collect_to_vec(&self.read_later(gpu).wait().await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Products that wrap 32 or 64 bits to something small are no small numbers of elements.
    #[test]
    fn elements_do_not_wrap() {
        assert_eq!(elements(&[]), Some(1));
        assert_eq!(elements(&[3, 5]), Some(15));
        assert_eq!(elements(&[1 << 16, 1 << 16]), Some(1 << 32));
        assert_eq!(elements(&[1 << 31, 1 << 30]), Some(1 << 61));
        assert_eq!(elements(&[1 << 31, 1 << 31]), None);
        assert_eq!(elements(&[1 << 31, 1 << 31, 4]), None);
        assert_eq!(elements(&[1 << 22, 1 << 21, 1 << 21, 1]), None);
        assert_eq!(elements(&[u32::MAX; 3]), None);
        assert_eq!(elements(&[u32::MAX, u32::MAX, u32::MAX, 0]), Some(0));
    }
}

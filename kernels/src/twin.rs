//! What a reference twin sees: the dispatch's parameters and the contents of its buffers.

use bytemuck::Pod;
use girih_shaders::Selection;

/// One dispatch, on the host.
pub struct TwinCall<'a> {
    /// Bytes of `Params`.
    pub params: &'a [u8],
    /// Constants and parts of the pipeline: they decide formats, never the arithmetic.
    pub selection: &'a Selection,
    /// Buffer contents in the order of the spec's bindings.
    pub buffers: &'a mut [Vec<u8>],
}

impl TwinCall<'_> {
    /// The parameters.
    pub fn params<P: Pod>(&self) -> P {
        bytemuck::pod_read_unaligned(&self.params[..size_of::<P>()])
    }

    /// A copy of buffer `i` as elements.
    pub fn get<T: Pod>(&self, i: usize) -> Vec<T> {
        bytemuck::pod_collect_to_vec(
            &self.buffers[i][..self.buffers[i].len() / size_of::<T>() * size_of::<T>()],
        )
    }

    /// Overwrites the front of buffer `i`.
    pub fn put<T: Pod>(&mut self, i: usize, data: &[T]) {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        self.buffers[i][..bytes.len()].copy_from_slice(bytes);
    }
}

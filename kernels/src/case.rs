//! Cases of kernels as data: what buffers hold, what is launched, how results are compared. No device is needed to
//! make one.
//!
//! The same cases serve the test suite, the self-test on a new device, and (their shapes apart) the benches.

use bytemuck::Pod;

use crate::caps::Caps;
use crate::choice::{Choice, Launch};

/// What a buffer holds, for the comparator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// f32, compared within the tolerance.
    F32,
    /// Two f16 in a u32, compared within the tolerance.
    F16,
    /// Bits, compared exactly.
    Bits,
    /// Quantised activations, signed bytes: one step of difference in few of them, where a value lies so near to a
    /// tie that f32 decides otherwise than f64.
    Codes,
    /// Their scales and sums, pairs of an f32 and two 16-bit integers, behind the buffer of [`Element::Codes`]: scales
    /// within the tolerance, sums exactly those of the codes that were found.
    Scales,
    /// Pairs of an expert and the f32 of its weight: experts exactly, weights within the tolerance.
    Routes,
}

/// One storage buffer of a case.
#[derive(Clone, Debug)]
pub struct TestBuffer {
    /// Contents before the launch.
    pub data: Vec<u8>,
    /// How results are compared.
    pub element: Element,
}

/// `+-(abs + rel |want|)`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Absolute part.
    pub abs: f64,
    /// Relative part.
    pub rel: f64,
}

impl Tolerance {
    /// f32 arithmetic whose result is a sum of `terms` products of magnitude `scale`: rounding errors of a sum
    /// grow like the square root of its length, an outlier or two may dominate them.
    pub fn f32_sum(terms: usize, scale: f64) -> Self {
        let ulp = f64::from(f32::EPSILON);
        Self { abs: 4.0 * ulp * (terms as f64).sqrt().max(1.0) * scale, rel: 64.0 * ulp }
    }
}

/// How the work of a case divides into tiles: of workgroups, or of what a workgroup does at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Regime {
    /// Into one, full or not.
    OneTile,
    /// Into some of which the last is not full.
    PartialTile,
    /// Into several.
    ManyTiles,
    /// As a published model divides it, at least along one axis.
    Model,
}

impl Regime {
    /// All of them: every variant has cases of each.
    pub const ALL: [Self; 4] = [Self::OneTile, Self::PartialTile, Self::ManyTiles, Self::Model];
}

/// A named case of a kernel. All launches must agree with the twin.
#[derive(Clone, Debug)]
pub struct TestCase {
    /// What it is about.
    pub name: String,
    /// How it divides into tiles.
    pub regime: Regime,
    /// Storage buffers in the order of the spec.
    pub buffers: Vec<TestBuffer>,
    /// Launches; each is run on fresh buffers.
    pub launches: Vec<Launch>,
    /// Tolerance of f32 and f16 results.
    pub tolerance: Tolerance,
}

impl TestCase {
    /// A case without launches.
    pub fn new(name: impl Into<String>, regime: Regime, tolerance: Tolerance) -> Self {
        Self { name: name.into(), regime, buffers: Vec::new(), launches: Vec::new(), tolerance }
    }

    /// Adds a buffer with contents.
    #[must_use]
    pub fn input<T: Pod>(mut self, data: &[T]) -> Self {
        let data = bytemuck::cast_slice(data).to_vec();
        self.buffers.push(TestBuffer { data, element: Element::Bits });
        self
    }

    /// Adds a buffer that is read and written: contents, and how they are compared.
    #[must_use]
    pub fn in_out<T: Pod>(mut self, data: &[T], element: Element) -> Self {
        let data = bytemuck::cast_slice(data).to_vec();
        self.buffers.push(TestBuffer { data, element });
        self
    }

    /// Adds an f32 output of `len` elements, poisoned with NaN so that a missing write is seen.
    #[must_use]
    pub fn output(mut self, len: usize) -> Self {
        let data = bytemuck::cast_slice(&vec![POISON; len]).to_vec();
        self.buffers.push(TestBuffer { data, element: Element::F32 });
        self
    }

    /// Adds a launch.
    #[must_use]
    pub fn launch(mut self, choice: Choice, params: &impl Pod, grid: [u32; 3]) -> Self {
        self.launches.push(Launch::new(choice, params, grid));
        self
    }
}

/// A shape to time.
#[derive(Clone, Debug)]
pub struct BenchCase {
    /// What the shape is, e.g. `1x4096x4096`.
    pub name: String,
    /// Bytes of each storage buffer; contents are seeded f32 unless given.
    pub buffers: Vec<BenchBuffer>,
    /// Launches to time; what `select` would pick on a device comes from `select`.
    pub launches: fn(&Caps, &str) -> Vec<Launch>,
    /// Bytes that the operation must move: each once, whatever is bound or read again.
    pub bytes: u64,
    /// Those of them that it writes.
    pub written: u64,
    /// Operations that it must do; a multiply-add is two.
    pub flops: u64,
    /// What they are.
    pub arithmetic: Arithmetic,
}

/// Arithmetic that a kernel does most of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// f32.
    F32,
    /// Products of bytes.
    Int8,
}

/// Contents of a bench buffer.
#[derive(Clone, Debug)]
pub enum BenchBuffer {
    /// Seeded f32 values with outliers.
    F32(usize),
    /// Seeded f16 values with outliers.
    F16(usize),
    /// Given words.
    U32(Vec<u32>),
    /// Given bytes, again and again up to a length.
    Repeated(Vec<u8>, usize),
}

/// A quiet NaN with a recognisable payload.
pub const POISON: f32 = f32::from_bits(0x7fc0_dead);
/// `x ^ x >> 16` and friends: a hash whose values are the same in every language.
pub fn hash(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// `len` seeded values in -1..1, one in 61 twenty times larger.
pub fn seeded(len: usize, seed: u32) -> Vec<f32> {
    (0..len as u32)
        .map(|i| {
            let bits = hash(i.wrapping_add(seed.wrapping_mul(0x9e37_79b9)));
            let value = (bits >> 8) as f32 / (1 << 23) as f32 - 1.0;
            if bits.is_multiple_of(61) { value * 20.0 } else { value }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_has_its_published_values() {
        assert_eq!(hash(1), 0x6889_90c0);
        assert_eq!(hash(2), 0xd113_2181);
    }
}

//! The description of a kernel from which dispatching, validation, twins, benches and docs derive.

use crate::caps::Caps;
use crate::case::{BenchCase, TestCase};
use crate::choice::{Choice, Launch};
use crate::quant::WeightFormat;
use crate::twin::TwinCall;

/// How a kernel uses a storage buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    ReadWrite,
}

/// One storage binding; `@binding(i + 1)` of group 0 (binding 0 holds the parameters).
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Name in the shader.
    pub name: &'static str,
    /// Access in the shader.
    pub access: Access,
    /// Whether a dispatch moves a part of what is bound: rows of a table, what a cache holds so far.
    pub in_part: bool,
}

impl Binding {
    /// The same binding, of which a dispatch moves a part.
    #[must_use]
    pub const fn in_part(self) -> Self {
        Self { in_part: true, ..self }
    }
}

/// A read-only binding.
pub const fn read(name: &'static str) -> Binding {
    Binding { name, access: Access::Read, in_part: false }
}

/// A read-write binding.
pub const fn read_write(name: &'static str) -> Binding {
    Binding { name, access: Access::ReadWrite, in_part: false }
}

/// What all variants of a kernel have in common.
#[derive(Debug)]
pub struct KernelSpec {
    /// Name, as profile lines and errors print it.
    pub name: &'static str,
    /// Storage bindings in order.
    pub bindings: &'static [Binding],
    /// Bytes of the `Params` struct.
    pub params_bytes: usize,
    /// The definition: same parameters, plain Rust, f64 accumulation.
    pub twin: fn(&mut TwinCall<'_>),
}

/// A kernel as the registry lists it.
#[derive(Debug)]
pub struct Kernel {
    /// Common part.
    pub spec: &'static KernelSpec,
    /// Every choice that `select` can return on some device (one of each shape of text; not every size).
    pub choices: fn() -> Vec<Choice>,
    /// Named cases, each with all launches that must give the twin's result.
    pub cases: fn() -> Vec<TestCase>,
    /// Cases with weights of any format, of a kernel that reads weights: those above are of some formats only.
    pub cases_of: Option<fn(WeightFormat) -> Vec<TestCase>>,
    /// Real shapes to time.
    pub benches: fn() -> Vec<BenchCase>,
    /// How its variants are measured against each other, where `select` has more than one for a device.
    pub tuning: Option<Tuning>,
    /// What a launch moves and computes, given the bytes of its bindings and the keys in the cache; `None` where it moves
    /// what is bound, once, and computes little.
    pub cost: Option<CostOf>,
}

/// [`Cost`] of a launch, given the bytes of its bindings and the keys in the cache.
pub type CostOf = fn(&Launch, &[u64], u32) -> Cost;

/// What a launch must move and compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes, each counted once.
    pub bytes: u64,
    /// Multiplications and additions in f32 or integers.
    pub flops: u64,
}

/// How the variants of a kernel are measured.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// The ways of doing what a recorded launch does. `None` for a launch that only a part of a product is.
    pub ways: fn(&Caps, &Launch) -> Option<Ways>,
    /// Data of its shape, and what comes of them.
    pub workload: fn(&Caps, &Launch) -> Option<Workload>,
}

/// The ways of doing one thing on a device: all that `select` can be told to take.
#[derive(Clone, Debug)]
pub struct Ways {
    /// Shape class, without spaces: what winners are kept for.
    pub shape: String,
    /// That of the rule first; names differ.
    pub ways: Vec<Way>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Way {
    /// What differs from the others, in words that stay.
    pub name: String,
    /// What is dispatched.
    pub steps: Vec<Step>,
}

/// A dispatch on the buffers of a [`Workload`].
#[derive(Clone, Debug)]
pub struct Step {
    /// Kernel.
    pub spec: &'static KernelSpec,
    /// Pipeline, parameters, grid.
    pub launch: Launch,
    /// Which buffer is bound where.
    pub bindings: Vec<usize>,
}

/// Seeded data that all ways are run with.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Buffers; first those that the kernel binds, in its order.
    pub buffers: Vec<Contents>,
    /// Which of them holds the result, f32.
    pub result: usize,
    /// A launch whose twin, on the patterns of the buffers, gives [`Workload::sample_shape`] of the result.
    pub sample: Launch,
    /// A buffer that holds something else for the sample.
    pub sample_buffer: Option<(usize, Vec<u8>)>,
    /// Rows and columns of the sample.
    pub sample_shape: [usize; 2],
    /// Rows and columns of the result.
    pub shape: [usize; 2],
    /// Whether the result repeats the sample along both; else it begins with it.
    pub repeats: bool,
}

/// What a buffer holds: a pattern, over and over.
#[derive(Clone, Debug)]
pub struct Contents {
    /// The bytes that are repeated.
    pub pattern: Vec<u8>,
    /// Length of the whole.
    pub bytes: u64,
}

impl Contents {
    /// The pattern alone.
    pub fn once<T: bytemuck::Pod>(data: &[T]) -> Self {
        Self::repeated(data, size_of_val(data) as u64)
    }

    /// The pattern up to a length.
    pub fn repeated<T: bytemuck::Pod>(data: &[T], bytes: u64) -> Self {
        Self { pattern: bytemuck::cast_slice(data).to_vec(), bytes }
    }

    /// All bytes, to a multiple of 16: vectors of four are bound whole.
    pub fn all(&self) -> Vec<u8> {
        let len = self.bytes.next_multiple_of(16).max(16) as usize;
        self.pattern.iter().copied().cycle().chain(std::iter::repeat(0)).take(len).collect()
    }
}

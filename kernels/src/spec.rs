//! The description of a kernel from which dispatching, validation, twins, benches and docs derive.

use crate::case::{BenchCase, TestCase};
use crate::choice::Choice;
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
}

//! The description of a kernel from which dispatching, validation, twins, benches and docs derive.

use girih_shaders::Selection;

use crate::testing::{BenchCase, TestCase};
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
}

/// A read-only binding.
pub const fn read(name: &'static str) -> Binding {
    Binding { name, access: Access::Read }
}

/// A read-write binding.
pub const fn read_write(name: &'static str) -> Binding {
    Binding { name, access: Access::ReadWrite }
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

/// One pipeline of a kernel: what `select` returns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Choice {
    /// Root file below `shaders/`.
    pub file: &'static str,
    /// Name of the variant: what it needs or does.
    pub variant: &'static str,
    /// Constants and parts.
    pub selection: Selection,
    /// Invocations of a workgroup; checked against the device and, in tests, against the shader.
    pub invocations: u32,
    /// Bytes of workgroup memory; checked likewise.
    pub workgroup_bytes: u32,
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
    /// Real shapes to time.
    pub benches: fn() -> Vec<BenchCase>,
}

//! GPU kernels for language models, written in WGSL and run through wgpu.
//!
//! This is the only library crate of girih that names wgpu. A kernel *family* is a module (`norm`, ...);
//! a kernel is one file with its parameters, its checks, its `select`, its `record` and its reference
//! twin. Kernels append dispatches to a [`Recorder`]; [`Gpu::submit`] runs them, [`Gpu::plan`] prepares them for
//! being run many times, [`Gpu::run_twins`] runs the CPU twins instead.

pub mod activation;
pub mod attention;
pub mod bench;
pub mod buffer;
pub mod caps;
pub mod elementwise;
pub mod embed;
pub mod error;
pub mod execute;
pub mod gpu;
pub mod matmul;
pub mod norm;
mod pipeline;
mod pipeline_cache;
pub mod probe;
pub mod recorder;
pub mod registry;
pub mod rope;
mod rows;
pub mod sample;
pub mod selftest;
pub mod softmax;
pub mod spec;
pub mod testing;
pub mod twin;

pub use buffer::Buffer;
pub use caps::{Caps, Tier};
pub use error::{GpuError, KernelError};
pub use execute::{Plan, Timing};
pub use gpu::{Counters, Gpu, Options};
pub use recorder::{Command, Dispatch, Recorder};
pub use spec::{Access, Binding, Choice, Kernel, KernelSpec};

pub use girih_shaders as shaders;
pub use wgpu;

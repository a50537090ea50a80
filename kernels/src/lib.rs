//! GPU kernels for language models, written in WGSL and run through wgpu.
//!
//! This is the only library crate of girih that names wgpu. A kernel *family* is a module (`norm`, ...);
//! a kernel is one file with its parameters, its checks, its `select`, its `record` and its reference
//! twin. Kernels append dispatches to a [`Recorder`]; [`Gpu::submit`] runs them, [`Gpu::plan`] prepares them for
//! being run many times, [`Gpu::run_twins`] runs the CPU twins instead.
//!
//! ```no_run
//! use girih_kernels::norm::rms_norm;
//! use girih_kernels::{Gpu, KernelError, Options, Recorder, execute};
//!
//! /// Normalises rows of 256 channels.
//! async fn normalise(x: &[f32]) -> Result<Vec<f32>, KernelError> {
//!     let gpu = Gpu::new(Options::default()).await?; // the best adapter; or `Gpu::from_wgpu` with your own device
//!     let bytes: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
//!     let (x_buffer, y_buffer) = (gpu.upload(&bytes)?, gpu.alloc(bytes.len() as u64)?);
//!     let args = rms_norm::Args { x: &x_buffer, w: None, y: &y_buffer };
//!
//!     let mut recorder = Recorder::new(&gpu);
//!     rms_norm::record(&mut recorder, args, x.len() as u32 / 256, 256, 1e-5)?; // chooses a variant; runs nothing
//!     gpu.submit(&recorder)?;
//!     // gpu.run_twins(recorder.commands(), |_| true).await? would compute the same on the CPU, in f64.
//!     Ok(execute::read_as(&gpu, &y_buffer).await?)
//! }
//! ```

pub mod activation;
pub mod adapter;
pub mod attention;
pub mod bench;
pub mod buffer;
pub mod caps;
pub mod case;
pub mod choice;
mod device;
pub mod elementwise;
pub mod embed;
pub mod error;
pub mod execute;
pub mod explain;
pub mod fused;
pub mod grid;
pub mod matmul;
pub mod memory;
pub mod moe;
pub mod norm;
pub mod probe;
pub mod quant;
pub mod recorder;
pub mod registry;
pub mod rope;
mod rows;
pub mod sample;
pub mod sealed;
pub mod selftest;
pub mod softmax;
pub mod spec;
pub mod ternary;
pub mod testing;
pub mod transform;
pub mod tune;
pub mod twin;
pub mod winners;

pub use buffer::Buffer;
pub use caps::{Caps, Tier};
pub use choice::{Choice, Data, Launch, Requires};
pub use device::{Counters, Gpu, Options, PendingRead};
pub use error::{GpuError, KernelError};
pub use execute::{Plan, Timing};
pub use grid::Grid;
pub use recorder::{Command, Dispatch, Recorder};
pub use spec::{Access, Binding, Kernel, KernelSpec};

pub use girih_shaders as shaders;
pub use wgpu;

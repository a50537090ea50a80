//! Shape-checked operations for language models on the GPU.
//!
//! An operation checks shapes, allocates its result in the [`Frame`] and records one kernel (or the few of a
//! fusion). It does no GPU work: [`Frame::submit`] runs what was recorded, [`Frame::plan`] keeps it for being
//! replayed. Operations know no tile sizes and no wgpu types.
//!
//! ```no_run
//! use girih_ops::{Act, Frame, GluAct, Gpu, Linear, Matrix, Norm, OpError, Options, Tensor, WeightType, linear};
//!
//! /// The feed-forward part of a Llama layer: `x + down(silu(gate(h)) · up(h))` with `h = norm(x)`.
//! async fn mlp(x: &[f32], norm: &[f32], gate_up: &[f32], down: &[f32]) -> Result<Vec<f32>, OpError> {
//!     const C: u32 = 256; // channels
//!     const F: u32 = 768; // channels between; the rows of gate and up alternate
//!     let gpu = Gpu::new(Options::default()).await?;
//!     let gate_up = Matrix::from_f32(&gpu, gate_up, 2 * F, C, WeightType::F16)?;
//!     let down = Matrix::from_f32(&gpu, down, C, F, WeightType::F16)?;
//!     let norm = Tensor::from_f32(&gpu, norm, &[C])?;
//!     let x = Tensor::from_f32(&gpu, x, &[x.len() as u32 / C, C])?;
//!
//!     let mut frame = Frame::new(&gpu);
//!     let norm = Some(Norm::Rms { weight: &norm, eps: 1e-5 });
//!     let fused = Linear { norm, act: Act::Glu(GluAct::Silu), ..Linear::default() };
//!     let h = linear(&mut frame, &x, &gate_up, &fused)?; // [T, F]
//!     let y = linear(&mut frame, &h, &down, &Linear { residual: Some(&x), ..Linear::default() })?; // [T, C]
//!     frame.submit()?; // until here nothing ran
//!     Ok(y.to_f32(&gpu).await?)
//! }
//! ```

mod attention;
mod batch;
mod elementwise;
mod embedding;
mod error;
mod frame;
mod linear;
mod linear_attention;
mod matrix;
pub mod memory;
mod mixture;
pub mod moe;
mod norm;
mod rope;
mod sampling;
mod softmax;
mod tensor;
pub mod ternary;
mod transform;

pub use attention::{Attention, attention, attention_with_lse};
pub use batch::{Batch, Chunk, KvSize, KvView, LatentSize, Seq, Strides};
pub use elementwise::{Activation, Glu, GluLayout, activation, add, glu, glu_fused, scale_add};
pub use embedding::{embedding, gather_rows};
pub use error::OpError;
pub use frame::{Arena, BreakPoint, Frame};
pub use linear::{Linear, Norm, NormAdd, linear, rms_norm_add_linear};
pub use linear_attention::linear_attention;
pub use matrix::{Format, Matrix, MatrixInput, Mix, Part, QuantActivation, WeightFormat, WeightType};
pub use mixture::{
    Elsewhere, ExpertPath, Experts, Mixture, expert_path, linear_by_expert, mixture, mixture_in_places,
};
pub use norm::{add_rms_norm, layer_norm, rms_norm, rms_norm_add, rms_norm_unit};
pub use rope::{
    LatentAppend, QkNorm, RopeAppend, RopeFreqs, RopeStyle, RopeTable, latent_append, rope, rope_append,
};
pub use sampling::{argmax, greedy_step, top_k};
pub use softmax::{Softmax, softmax};
pub use tensor::{DType, Tensor};
pub use transform::{Quantized, RowMix, RowTransform};
pub use transform::{
    fake_quantize_rows, hadamard, hadamard_heads, kronecker, permute_columns, quantize_rows, transform_rows,
};

pub use girih_kernels as kernels;
pub use girih_kernels::matmul::{Act, GluAct};
pub use girih_kernels::{Buffer, Caps, Gpu, GpuError, KernelError, Options, Plan, Tier};

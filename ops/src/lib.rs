//! Shape-checked operations for language models on the GPU.
//!
//! An operation checks shapes, allocates its result in the [`Frame`] and records one kernel (or the few of a
//! fusion). It does no GPU work: [`Frame::submit`] runs what was recorded, [`Frame::plan`] keeps it for being
//! replayed. Operations know no tile sizes and no wgpu types.

mod attention;
mod batch;
mod elementwise;
mod embedding;
mod error;
mod frame;
mod linear;
mod matrix;
mod norm;
mod rope;
mod sampling;
mod softmax;
mod tensor;

pub use attention::{Attention, attention, attention_with_lse};
pub use batch::{Batch, Chunk, KvView, Seq, Strides};
pub use elementwise::{Activation, Glu, GluLayout, activation, add, glu, glu_fused, scale_add};
pub use embedding::{embedding, gather_rows};
pub use error::OpError;
pub use frame::{Arena, Frame};
pub use linear::{Linear, Norm, linear};
pub use matrix::{Matrix, WeightType};
pub use norm::{add_rms_norm, layer_norm, rms_norm, rms_norm_add, rms_norm_unit};
pub use rope::{QkNorm, RopeAppend, RopeFreqs, RopeStyle, RopeTable, rope, rope_append};
pub use sampling::{argmax, greedy_step, top_k};
pub use softmax::{Softmax, softmax};
pub use tensor::{DType, Tensor};

pub use girih_kernels as kernels;
pub use girih_kernels::matmul::{Act, GluAct};
pub use girih_kernels::{Buffer, Caps, Gpu, GpuError, KernelError, Options, Plan, Tier};

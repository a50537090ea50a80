//! Products of activations with weight matrices, `y = epilogue(norm(x) · Wᵀ)`.
//!
//! [`gemv`] is for the few rows of a decode step and normalises x on the way; [`gemm`] is for many rows. Both read
//! W through one function of a shader part (`load_w8`), so a weight format is a part and a [`WeightFormat`], and both
//! share the epilogue: bias, factor, activation, gated linear unit, residual.

pub mod bench;
pub mod experts;
mod few_rows;
pub mod gemm;
pub mod gemm_int;
pub mod gemv;
pub mod gemv_int;
pub mod int;
mod product;
mod reference;
pub mod split_sum;
mod tile;
mod tuning;

use girih_shaders::Selection;

use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::device::Gpu;
use crate::error::KernelError;
use crate::quant::{Code, Format, Scale};

pub use crate::quant::WeightFormat;
pub use experts::{ExpertShape, GroupedArgs, XRows};
pub use product::{Act, Epilogue, GluAct, Params, Part, Shape, in_one_binding};

/// The parts of a selection that a shape and a format decide.
fn parts(selection: Selection, format: WeightFormat, aligned: bool) -> Selection {
    let x = if aligned { "matmul/x_vec4.wgsl" } else { "matmul/x_scalar.wgsl" };
    format.apply(selection.part("x_vec4", x))
}

/// Every code, type of scale, zero and second level at least once; groups of 16, 32, 128, 256 and whole rows.
const QUANT_FORMATS: [Format; 17] = [
    Format::Q4_0,
    Format::Q8_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q4_K,
    Format::Q5_K,
    Format::Q6_K,
    Format::IQ4_NL,
    Format::MXFP4,
    Format::NVFP4,
    Format::QOQ,
    Format::fp8(Format::ROW),
    Format::fp8(128),
    Format::asymmetric(Code::Int4, 128),
    Format::asymmetric(Code::Int8, Format::ROW),
    Format { scale: Scale::F32, ..Format::asymmetric(Code::Int4, 24) },
    Format::asymmetric(Code::Int8, 64),
];

/// Stands in for a buffer that a pipeline does not read.
fn or_dummy(gpu: &Gpu, buffer: Option<&Buffer>) -> Result<Buffer, KernelError> {
    Ok(match buffer {
        Some(buffer) => buffer.clone(),
        None => gpu.dummy()?,
    })
}

/// Workgroups along x and y for a long one-dimensional grid.
fn wrap(caps: &Caps, groups: u32) -> [u32; 2] {
    let grid_x = groups.min(caps.workgroups);
    [grid_x, groups.div_ceil(grid_x.max(1))]
}

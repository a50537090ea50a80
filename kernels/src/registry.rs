//! Every kernel, one line each.

use crate::spec::Kernel;

/// All kernels of the library.
pub const KERNELS: &[&Kernel] = &[
    &crate::norm::rms_norm::KERNEL,
    &crate::matmul::gemv::KERNEL,
    &crate::matmul::gemm::KERNEL,
    &crate::matmul::split_sum::KERNEL,
];

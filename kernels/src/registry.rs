//! Every kernel, one line each.

use crate::spec::Kernel;

/// All kernels of the library.
pub const KERNELS: &[&Kernel] = &[
    &crate::norm::rms_norm::KERNEL,
    &crate::probe::copy::KERNEL,
    &crate::probe::fma::KERNEL,
    &crate::attention::prefill::KERNEL,
    &crate::attention::decode::KERNEL,
    &crate::attention::merge::KERNEL,
    &crate::matmul::gemv::KERNEL,
    &crate::matmul::gemm::KERNEL,
    &crate::matmul::split_sum::KERNEL,
];

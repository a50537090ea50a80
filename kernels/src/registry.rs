//! Every kernel, one line each.

use crate::spec::Kernel;

/// All kernels of the library.
pub const KERNELS: &[&Kernel] = &[
    &crate::norm::rms_norm::KERNEL,
    &crate::probe::copy::KERNEL,
    &crate::probe::fma::KERNEL,
    &crate::probe::read::KERNEL,
    &crate::probe::write::KERNEL,
    &crate::probe::int8_dot::KERNEL,
    &crate::probe::barrier::KERNEL,
    &crate::attention::prefill::KERNEL,
    &crate::attention::decode::KERNEL,
    &crate::attention::merge::KERNEL,
    &crate::matmul::gemv::KERNEL,
    &crate::matmul::gemv::norm_add::KERNEL,
    &crate::matmul::gemm::KERNEL,
    &crate::matmul::gemv_int::KERNEL,
    &crate::matmul::gemm_int::KERNEL,
    &crate::matmul::split_sum::KERNEL,
    &crate::elementwise::activation::KERNEL,
    &crate::elementwise::glu::KERNEL,
    &crate::elementwise::scale_add::KERNEL,
    &crate::embed::embedding::KERNEL,
    &crate::embed::gather_rows::KERNEL,
    &crate::rope::rope_append::KERNEL,
    &crate::norm::add_rms_norm::KERNEL,
    &crate::norm::layer_norm::KERNEL,
    &crate::norm::rms_norm_add::KERNEL,
    &crate::rope::rotate::KERNEL,
    &crate::sample::argmax::KERNEL,
    &crate::sample::argmax_merge::KERNEL,
    &crate::sample::greedy_advance::KERNEL,
    &crate::sample::top_k::KERNEL,
    &crate::softmax::KERNEL,
    &crate::transform::KERNEL,
];

#![doc = include_str!("../README.md")]

pub use girih_kernels as kernels;
pub use girih_model as model;
pub use girih_ops as ops;

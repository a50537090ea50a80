//! From files to matrices on the GPU: where bytes come from, the formats that they have, quantised modules, weights by
//! name.

pub mod format;
pub mod quantized;
pub mod source;
pub mod synthetic;
pub mod tensors;
pub mod weights;

//! From files to matrices on the GPU: where bytes come from, the formats that they have, quantised modules, weights by
//! name.

pub mod blocks;
pub mod format;
pub mod quantized;
pub mod source;
pub mod synthetic;
pub mod table;
pub mod tensors;
pub mod weights;

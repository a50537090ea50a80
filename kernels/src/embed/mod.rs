//! Rows of a table by index.

pub mod embedding;
pub mod gather_rows;

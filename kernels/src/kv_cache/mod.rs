//! Writing keys and values to the cache.

pub mod rope_append;

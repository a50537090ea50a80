//! Normalisations over the last axis.

pub mod rms_norm;

//! The transport between standard normals and mixtures: a reference in f64, and passes over pixels for CPUs and GPUs.

pub(crate) mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;
pub(crate) mod ops;
pub mod reference;
pub mod types;
pub mod univariate;

//! The transport between standard normals and mixtures.

pub(crate) mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;

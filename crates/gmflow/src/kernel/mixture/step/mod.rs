//! The step of a solver: guidance, second-order change and sub-steps.

pub(crate) mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;
pub(crate) mod ops;
pub(crate) mod passes;
pub(crate) mod types;

//! The step of a solver: guidance, second-order change and sub-steps.
//!
//! [`types`] says what goes in and comes out, [`reference`] defines the step in tensor operations, and [`cpu`] and `gpu` compute it in passes
//! over pixels, each in the same files with the same functions: `guide`, `second_order`, `ode_substeps`, `reweighted`. [`ops`] dispatches to
//! them by the backend, and [`passes`] calls that with tensors.

pub(crate) mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;
pub(crate) mod ops;
pub(crate) mod passes;
pub(crate) mod reference;
#[cfg(test)]
mod tests;
pub(crate) mod types;

//! Kernels on mixtures of Gaussians: their likelihood, the step of a solver, roll-outs of a policy, and the transport from normals.

pub(crate) mod nll;
pub(crate) mod nll_ops;
pub(crate) mod policy;
pub(crate) mod sizes;
pub(crate) mod step;
pub(crate) mod transport;

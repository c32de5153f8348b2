//! Policies: what a network predicts once, at the beginning of a step, gives the velocity at every later point of the step
//! (pi-Flow, arXiv:2510.14974).
//!
//! A step is then an ODE that is integrated in many sub-steps without a further call of the network. The mixture that the networks of this
//! crate predict is such a policy as it is ([`MixturePolicy`]), and a step along it is GM-ODE of order 1. [`GridPolicy`] is the baseline:
//! x0 at points of time, between which it is interpolated.
//!
//! Roll-outs go along *raw* times r, those before the shift m of the time grid: t = m r/(1 + (m - 1) r). [`SubstepGrid`]
//! says how many sub-steps they take, [`Segments`] how the steps of a sampler divide the way from r = 1 to r = 0.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use gmflow::mixture::{GaussianMixture, VelocityMixture};
//! use gmflow::policy::{MixturePolicy, SubstepGrid, Policy};
//!
//! // Two certain components, at x0 = -1 and x0 = 1 seen from x = 0 at t = 1.
//! let device = Device::flex();
//! let velocity = VelocityMixture(GaussianMixture {
//!     means: Tensor::<1>::from_floats([1.0, -1.0], &device).reshape([1, 2, 1, 1, 1]),
//!     log_weights: Tensor::full([1, 2, 1, 1, 1], -(2.0f32.ln()), &device),
//!     log_std: Tensor::full([1, 1, 1, 1, 1], -4.0, &device),
//! });
//! let policy = Policy::Mixture(MixturePolicy::new(velocity, Tensor::zeros([1, 1, 1, 1], &device), vec![1.0])?);
//! // From a point nearer to one of them the roll-out ends there.
//! let x = Tensor::<4>::full([1, 1, 1, 1], 0.4, &device);
//! let end = policy.roll_out(&x, (&[0.5], &[0.0]), SubstepGrid { shift: 1.0, substeps: 64.0 });
//! assert!((end.into_scalar::<f32>() - 1.0).abs() < 0.1);
//! # Ok::<(), gmflow::Error>(())
//! ```

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]

mod grid;
mod mixture;
mod segments;
mod substep_grid;

pub use grid::GridPolicy;
pub use mixture::MixturePolicy;
pub use segments::{Renoising, Segments};
pub use substep_grid::{SubstepGrid, raw_time, time};

use crate::kernel::mixture::policy::SamplePath;
use crate::path::per_sample;
use burn::tensor::{Device, Tensor, TensorData};

/// The smallest time that the velocity of a mixture is divided by, and that of a grid.
const EARLIEST: f64 = 1e-6;
const EARLIEST_OF_GRID: f64 = 1e-4;

/// What a network predicted at (`x_src`, `t_src`), as a velocity at later points.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of them at a time, and both hold tensors")]
pub enum Policy {
    /// A mixture at every pixel, moved to each point by (10).
    Mixture(MixturePolicy),
    /// x0 at points of time.
    Grid(GridPolicy),
}

impl Policy {
    /// Where it was predicted, `[b c h w]`.
    pub fn source(&self) -> &Tensor<4> {
        match self {
            Self::Mixture(policy) => policy.source(),
            Self::Grid(policy) => policy.source(),
        }
    }

    /// Where each sample's path ends `[b c h w]`, from `x` `[b c h w]`.
    fn ends(&self, x: &Tensor<4>, paths: &[SamplePath]) -> Tensor<4> {
        match self {
            Self::Mixture(policy) => policy.ends(x, paths),
            Self::Grid(policy) => policy.ends(x, paths),
        }
    }

    /// The velocity `[b c h w]` at (`x` `[b c h w]`, t), t of each sample at most that of its source: (x - X)/t with the policy's x0 there.
    pub fn velocity(&self, x: &Tensor<4>, t: &[f64]) -> Tensor<4> {
        let paths: Vec<SamplePath> = t.iter().map(|t| SamplePath::ToMean(*t)).collect();
        let x0 = self.ends(x, &paths);
        (x.clone() - x0) / lengths(t.iter().map(|t| self.divisor(*t)), &x.device())
    }

    /// The time that a velocity at t is divided by.
    fn divisor(&self, t: f64) -> f64 {
        t.max(if matches!(self, Self::Grid(_)) { EARLIEST_OF_GRID } else { EARLIEST })
    }

    /// The samples `[b c h w]` after the Euler sub-steps from `x` `[b c h w]` at each sample's raw time `from` down to its raw time `to`.
    pub fn roll_out(&self, x: &Tensor<4>, (from, to): (&[f64], &[f64]), substep_grid: SubstepGrid) -> Tensor<4> {
        let paths: Vec<SamplePath> =
            from.iter().zip(to).map(|(from, to)| SamplePath::Along(substep_grid.times(*from, *to))).collect();
        self.ends(x, &paths)
    }

    /// The mean velocity `[b c h w]` of the roll-out from `x` at the raw times `from` down to `to`: its displacement by the time that it
    /// takes. Where that is shorter than a sub-step and a half, the velocity at its beginning.
    pub fn mean_velocity(&self, x: &Tensor<4>, (from, to): (&[f64], &[f64]), substep_grid: SubstepGrid) -> Tensor<4> {
        let (mut paths, mut spans) = (Vec::with_capacity(from.len()), Vec::with_capacity(from.len()));
        for (&from, &to) in from.iter().zip(to) {
            let t = time(from, substep_grid.shift);
            if ((from - to) * substep_grid.substeps).round_ties_even() < 2.0 {
                paths.push(SamplePath::ToMean(t));
                spans.push(self.divisor(t));
            } else {
                paths.push(SamplePath::Along(substep_grid.times(from, to)));
                spans.push(t - time(to, substep_grid.shift));
            }
        }
        (x.clone() - self.ends(x, &paths)) / lengths(spans.into_iter(), &x.device())
    }

    /// The same without gradients, on the plain device.
    pub fn detached(&self) -> Self {
        match self {
            Self::Mixture(policy) => Self::Mixture(policy.detached()),
            Self::Grid(policy) => Self::Grid(policy.detached()),
        }
    }
}

/// Numbers to divide by, `[b 1 1 1]`.
fn lengths(values: impl Iterator<Item = f64>, device: &Device) -> Tensor<4> {
    let values: Vec<f32> = values.map(|value| value as f32).collect();
    let b = values.len();
    per_sample(&Tensor::<1>::from_data(TensorData::new(values, [b]), device))
}

/// The tensor on the plain device.
fn plain<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if x.device().is_autodiff() { x.inner() } else { x }
}

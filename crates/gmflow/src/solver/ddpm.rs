//! Ancestral sampling as in DDPM: the reverse transition from the mean, with the posterior variance only.

use super::interface::{Context, Solver, SolverState, Span};
use super::mixture_step::{self, MixtureStep, Motion};
use crate::Result;

/// Ancestral sampling as in DDPM: the reverse transition from the mean, with the posterior variance only.
#[derive(Clone, Copy, Debug)]
pub(super) struct DdpmSmall {
    /// 1, or 2 for a mean with the second-order change.
    pub order: u8,
    /// Sub-steps per network call.
    pub substeps: usize,
}

impl Solver for DdpmSmall {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        let settings = MixtureStep { order: self.order, substeps: self.substeps, motion: Motion::Mean(|_| 0.0) };
        mixture_step::step(state, span, context, settings)
    }

    fn order(&self) -> usize {
        usize::from(self.order)
    }
}

/// The same with the variance enlarged by that of standard normal data.
#[derive(Clone, Copy, Debug)]
pub(super) struct DdpmLarge {
    /// 1, or 2 for a mean with the second-order change.
    pub order: u8,
    /// Sub-steps per network call.
    pub substeps: usize,
}

impl Solver for DdpmLarge {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        let motion = Motion::Mean(ddpm_large_std);
        let settings = MixtureStep { order: self.order, substeps: self.substeps, motion };
        mixture_step::step(state, span, context, settings)
    }

    fn order(&self) -> usize {
        usize::from(self.order)
    }
}

/// The standard deviation that DDPM with large variance ascribes to x0 given x_t: that of a velocity with
/// s = 1/sqrt(alpha^2 + sigma^2), as if data were standard normal.
pub fn ddpm_large_std(t: f64) -> f64 {
    t / ((1.0 - t).powi(2) + t * t).sqrt()
}

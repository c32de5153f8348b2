//! GM-ODE: Euler sub-steps along the analytic velocity of the mixture.

use super::interface::{Context, Solver, SolverState, Span};
use super::mixture_step::{self, MixtureStep, Motion};
use crate::Result;

/// GM-ODE: Euler sub-steps along the analytic velocity of the mixture.
#[derive(Clone, Copy, Debug)]
pub(super) struct GmOde {
    /// 1 or 2.
    pub order: u8,
    /// Sub-steps per network call; by default those of the span.
    pub substeps: Option<usize>,
}

impl Solver for GmOde {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        let substeps = self.substeps.unwrap_or(span.default_substeps);
        let settings = MixtureStep { order: self.order, substeps, motion: Motion::Velocity };
        mixture_step::step(state, span, context, settings)
    }

    fn order(&self) -> usize {
        usize::from(self.order)
    }
}

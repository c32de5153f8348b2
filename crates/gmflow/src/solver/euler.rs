//! x + dt u: the vanilla flow's solver, which is DDIM with eta = 0.

use super::interface::{Context, Solver, SolverState, Span};
use super::mixture_step::{self, MixtureStep, Motion};
use crate::Result;

/// x + dt u: the vanilla flow's solver, which is DDIM with eta = 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Euler;

impl Solver for Euler {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        let settings = MixtureStep { order: 1, substeps: 1, motion: Motion::Velocity };
        mixture_step::step(state, span, context, settings)
    }

    fn order(&self) -> usize {
        1
    }
}

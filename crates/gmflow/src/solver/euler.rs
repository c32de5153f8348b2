//! x + dt u: the vanilla flow's solver, which is DDIM with eta = 0.

use super::built_in::BuiltIn;
use super::interface::{Context, Solver, SolverState, Span};
use super::mixture_step::{self, MixtureStep, Motion};
use crate::Result;
use serde::{Deserialize, Serialize};

/// x + dt u: the vanilla flow's solver, which is DDIM with eta = 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Euler {}

impl BuiltIn for Euler {
    const DEFAULT: Self = Self {};
}

impl Solver for Euler {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        let settings = MixtureStep { order: 1, substeps: 1, motion: Motion::Velocity };
        mixture_step::step(state, span, context, settings)
    }

    fn order(&self) -> usize {
        1
    }
}

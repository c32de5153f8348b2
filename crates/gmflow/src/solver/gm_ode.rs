//! GM-ODE: Euler sub-steps along the analytic velocity of the mixture.

use super::built_in::{BuiltIn, check_order, check_substeps};
use super::interface::{Context, Solver, SolverState, Span};
use super::mixture_step::{self, MixtureStep, Motion};
use crate::Result;
use serde::{Deserialize, Serialize};

/// Euler sub-steps along the analytic velocity of the mixture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GmOde {
    /// 1 or 2.
    pub order: u8,
    /// Sub-steps per network call; by default 128 shared among the steps.
    pub substeps: Option<usize>,
}

impl BuiltIn for GmOde {
    const DEFAULT: Self = Self { order: 2, substeps: None };

    fn validate(&self) -> Result<()> {
        check_order(self.order)?;
        check_substeps(self.substeps.unwrap_or(1))
    }

    fn has_second_order_change(&self) -> bool {
        self.order == 2
    }
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

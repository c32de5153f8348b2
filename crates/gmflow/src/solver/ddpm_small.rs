//! Ancestral sampling as in DDPM: the reverse transition from the mean, with the posterior variance only.

use super::built_in::{BuiltIn, check_order, check_substeps};
use super::interface::{Context, Solver, SolverState, Span};
use super::mixture_step::{self, MixtureStep, Motion};
use crate::Result;
use serde::{Deserialize, Serialize};

/// The reverse transition from the mean with the posterior variance only.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DdpmSmall {
    /// 1, or 2 for a mean with the second-order change of the mixture solvers.
    pub order: u8,
    /// Sub-steps per network call, the mean moved to each point by the mixture.
    pub substeps: usize,
}

impl BuiltIn for DdpmSmall {
    const DEFAULT: Self = Self { order: 1, substeps: 1 };

    fn validate(&self) -> Result<()> {
        check_order(self.order)?;
        check_substeps(self.substeps)
    }

    fn has_second_order_change(&self) -> bool {
        self.order == 2
    }
}

impl Solver for DdpmSmall {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        let motion = Motion::Mean(|_| 0.0);
        mixture_step::step(state, span, context, MixtureStep { order: self.order, substeps: self.substeps, motion })
    }

    fn order(&self) -> usize {
        usize::from(self.order)
    }
}

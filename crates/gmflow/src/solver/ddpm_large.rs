//! Ancestral sampling as in DDPM, with the variance enlarged by that of standard normal data.

use super::built_in::{BuiltIn, check_order, check_substeps};
use super::interface::{Context, Solver, SolverState, Span};
use super::mixture_step::{self, MixtureStep, Motion};
use crate::Result;
use serde::{Deserialize, Serialize};

/// The reverse transition from the mean, its variance enlarged by that of standard normal data.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DdpmLarge {
    /// As with small variance.
    pub order: u8,
    /// As with small variance.
    pub substeps: usize,
}

impl BuiltIn for DdpmLarge {
    const DEFAULT: Self = Self { order: 1, substeps: 1 };

    fn validate(&self) -> Result<()> {
        check_order(self.order)?;
        check_substeps(self.substeps)
    }

    fn has_second_order_change(&self) -> bool {
        self.order == 2
    }
}

impl Solver for DdpmLarge {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        let motion = Motion::Mean(ddpm_large_std);
        mixture_step::step(state, span, context, MixtureStep { order: self.order, substeps: self.substeps, motion })
    }

    /// The first, also with the second-order change: what the variance is enlarged by comes on top of what the change makes up for.
    fn order(&self) -> usize {
        1
    }
}

/// The standard deviation that DDPM with large variance ascribes to x0 given x_t: that of a velocity with
/// s = 1/sqrt(alpha^2 + sigma^2), as if data were standard normal.
pub fn ddpm_large_std(t: f64) -> f64 {
    t / ((1.0 - t).powi(2) + t * t).sqrt()
}

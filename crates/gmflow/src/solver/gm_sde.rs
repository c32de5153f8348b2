//! GM-SDE: exact reverse transitions from draws of the mixture.

use super::built_in::{BuiltIn, check_order};
use super::interface::{Context, Solver, SolverState, Span};
use super::mixture_step::{self, MixtureStep, Motion};
use crate::Result;
use serde::{Deserialize, Serialize};

/// Exact reverse transitions from draws of the mixture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GmSde {
    /// 1 or 2.
    pub order: u8,
    /// Whether the draws are shaped by the model's spectrum network; by default where it has one.
    pub spectral: Option<bool>,
}

impl BuiltIn for GmSde {
    const DEFAULT: Self = Self { order: 2, spectral: None };

    fn validate(&self) -> Result<()> {
        check_order(self.order)
    }

    fn has_second_order_change(&self) -> bool {
        self.order == 2
    }
}

impl Solver for GmSde {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        let motion = Motion::Draw { spectral: self.spectral.unwrap_or(true) };
        mixture_step::step(state, span, context, MixtureStep { order: self.order, substeps: 1, motion })
    }

    /// Of the distribution of the samples, where the mixture has the mean of the posterior and another width; where it is the posterior,
    /// every step is exact.
    fn order(&self) -> usize {
        usize::from(self.order)
    }
}

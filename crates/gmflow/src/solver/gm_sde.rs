//! GM-SDE: exact reverse transitions from draws of the mixture.

use super::interface::{Context, Solver, SolverState, Span};
use super::mixture_step::{self, MixtureStep, Motion};
use crate::Result;

/// GM-SDE: exact reverse transitions from draws of the mixture.
#[derive(Clone, Copy, Debug)]
pub(super) struct GmSde {
    /// 1 or 2.
    pub order: u8,
    /// Whether draws are shaped by the spectrum network; by default where there is one.
    pub spectral: Option<bool>,
}

impl Solver for GmSde {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        let motion = Motion::Draw { spectral: self.spectral.unwrap_or(true) };
        mixture_step::step(state, span, context, MixtureStep { order: self.order, substeps: 1, motion })
    }

    fn order(&self) -> usize {
        usize::from(self.order)
    }
}

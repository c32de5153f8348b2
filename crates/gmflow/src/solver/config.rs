//! What the solvers that come with the crate have in common as settings.

use super::SolverConfig;
use super::interface::{Context, Solver, SolverState, Span};
use super::{DdpmLarge, DdpmSmall, SaSolver};
use crate::Result;
use burn::tensor::Tensor;

impl SolverConfig {
    /// DDPM with small variance as it is usually meant: first order, no sub-steps.
    pub const DDPM_SMALL: Self = Self::DdpmSmall(DdpmSmall { order: 1, substeps: 1 });
    /// DDPM with large variance, likewise.
    pub const DDPM_LARGE: Self = Self::DdpmLarge(DdpmLarge { order: 1, substeps: 1 });
    /// SA-Solver with all the noise.
    pub const SA_SOLVER: Self = Self::SaSolver(SaSolver { tau: 1.0 });

    /// Sub-steps of GM-ODE per network call where none are given: 8 for 4 and 6 steps on images, otherwise 128 shared among
    /// the steps and at least 2 on images.
    pub fn default_substeps(steps: usize, points: bool) -> usize {
        match steps {
            _ if points => 128usize.div_ceil(steps.max(1)),
            4 | 6 => 8,
            _ => (128 / steps.max(1)).max(2),
        }
    }

    /// [`Solver::init`].
    pub fn init(&self, x: Tensor<4>) -> SolverState {
        self.solver().init(x)
    }

    /// [`Solver::step`].
    ///
    /// # Errors
    /// As there.
    pub fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        self.solver().step(state, span, context)
    }

    /// [`Solver::order`].
    pub fn order(&self) -> usize {
        self.solver().order()
    }
}

impl Solver for SolverConfig {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        self.solver().step(state, span, context)
    }

    fn order(&self) -> usize {
        self.solver().order()
    }
}

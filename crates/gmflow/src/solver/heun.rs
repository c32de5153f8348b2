//! Euler with a trapezoidal correction: two network calls per step, one in the last.

use super::built_in::BuiltIn;
use super::interface::{Context, Solver, SolverState, Span, SubStep};
use super::transition::euler_step;
use crate::Result;
use crate::mixture::DataMixture;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Euler with a trapezoidal correction: two network calls per step, one in the last.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heun {}

impl BuiltIn for Heun {
    const DEFAULT: Self = Self {};
}

impl Solver for Heun {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        Ok(heun_step(state, span, context))
    }

    fn order(&self) -> usize {
        2
    }
}

/// The trapezoidal rule on the velocity; the last step is Euler's, because the velocity at t = 0 is 0/0.
fn heun_step(state: SolverState, span: Span, context: &mut Context) -> SolverState {
    let mut predict = |x: &Tensor<4>, t: f64| -> (DataMixture, Tensor<4>) {
        let mixture = (context.predict)(x, t).mixture();
        let mean = mixture.0.mean();
        (mixture, mean)
    };
    let (mixture, x0) = predict(state.x(), span.t);
    let mut x = euler_step(state.x(), &x0, span.t, span.to);
    if span.to > 0.0 {
        let (_, end) = predict(&x, span.to);
        let velocity = (state.x().clone() - x0.clone()) / span.t + (x - end) / span.to;
        x = state.into_x() + velocity * (0.5 * (span.to - span.t));
    }
    if let Some(observe) = &mut context.observe {
        observe(&SubStep { step: span.index, substep: 0, last: true, mixture: &mixture, x0: &x0, x: &x });
    }
    SolverState::new(x)
}

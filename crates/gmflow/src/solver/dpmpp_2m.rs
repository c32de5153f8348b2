//! DPM-Solver++ 2M (arXiv:2211.01095): multistep of order 2, the midpoint form.

use super::built_in::BuiltIn;
use super::interface::{Context, Solver, SolverState, Span};
use super::multistep::{self, Node, Predictor, Rule, extrapolated, floored, lambda, slope};
use crate::Result;
use serde::{Deserialize, Serialize};

/// DPM-Solver++ 2M: multistep of order 2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dpmpp2m {}

impl BuiltIn for Dpmpp2m {
    const DEFAULT: Self = Self {};
}

impl Solver for Dpmpp2m {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        Ok(multistep::step(state, span, context, self))
    }

    fn order(&self) -> usize {
        2
    }
}

impl Rule for Dpmpp2m {
    fn predictor(&self, span: Span, history: &[Node]) -> Predictor {
        if span.to <= 0.0 {
            return Predictor::X0;
        }
        dpmpp_2m(span.t, span.to, history.first().map(|node| node.t))
    }
}

/// The line through the predictions at `t` and `before`, continued by half of the step.
pub(super) fn dpmpp_2m(t: f64, to: f64, before: Option<f64>) -> Predictor {
    let h = lambda(to) - lambda(t);
    extrapolated(to / t, -floored(to) * (-h).exp_m1(), slope(t, before, h))
}
